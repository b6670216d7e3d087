"""Data sources: local files, object storage, packaged samples."""
