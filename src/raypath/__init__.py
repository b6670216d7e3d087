"""Raypath: from a team's own data to a model in service, on Ray."""
