"""Artifact stores: local folder, shared folder, object storage."""
