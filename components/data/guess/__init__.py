"""Guess the kinds and roles of columns from files as they are."""
