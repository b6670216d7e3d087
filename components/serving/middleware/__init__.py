"""ASGI middleware: authentication, rate limits, request limits, request log."""
