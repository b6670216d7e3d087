"""Columns: the canonical schema, and parsing of class labels, label sets and numeric targets."""
