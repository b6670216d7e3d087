"""Replacement of personal data by its kind, asterisks, a keyed hash or a surrogate."""
