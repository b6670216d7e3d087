"""File formats: CSV, JSON lines, Parquet, packaged samples, and the translation of parse errors."""
