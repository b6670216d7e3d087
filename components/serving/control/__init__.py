"""Deployment of endpoints on Ray Serve."""
