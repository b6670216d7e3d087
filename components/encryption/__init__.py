"""Encryption at rest: sealed files, the keys of a home, and folders in memory for plaintext."""
