"""Rows on their way from a user's files to token ids: readers, checks, parts, tokens. None holds all texts at once."""
