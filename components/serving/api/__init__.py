"""HTTP API of an endpoint."""
