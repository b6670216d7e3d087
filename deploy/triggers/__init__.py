"""Schedules and webhooks that start runs."""
