"""Commands on API keys, usage, signatures, and the protection of data."""
