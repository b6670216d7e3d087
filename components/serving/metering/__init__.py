"""API keys and usage metering."""
