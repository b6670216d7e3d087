"""HTML pages of an endpoint."""
