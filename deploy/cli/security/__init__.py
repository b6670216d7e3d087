"""Commands on API keys, usage, signatures, the audit log and backups."""
