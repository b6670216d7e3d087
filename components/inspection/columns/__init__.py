"""Columns of files as they are: their values as text, and guesses of their kinds and roles."""
