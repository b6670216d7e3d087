"""Commands on API keys, usage, signatures and the audit log."""
