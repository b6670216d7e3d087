"""Encrypted stores: sealed files in a folder or a bucket, working copies in memory."""
