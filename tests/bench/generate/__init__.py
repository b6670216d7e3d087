"""Streaming generation by Raypath's service and by others: `python -m tests.bench.generate --help`."""
