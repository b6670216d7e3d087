"""File formats: CSV, JSON lines, Parquet, and the errors that broken files raise."""
