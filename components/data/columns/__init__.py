"""Column kinds: label values, label sets and numbers, their schema and their encoding."""
