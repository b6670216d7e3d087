"""Compliance review: regimes as data, checks over evidence, and the report. Legal advice it is not."""
