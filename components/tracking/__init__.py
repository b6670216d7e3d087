"""MLflow runs: local spool and uploader."""
