"""Risks of a project, from evidence: what may go wrong, how likely, how bad, and what lowers it."""
