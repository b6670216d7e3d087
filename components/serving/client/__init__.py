"""HTTP client of an endpoint for user programs: httpx and pydantic, nothing else."""
