"""Commands on API keys, usage, signatures, the audit log, backups and retention."""
