"""Following and packaging of remote runs."""
