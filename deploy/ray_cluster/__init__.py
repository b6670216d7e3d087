"""The launcher for an existing Ray cluster."""
