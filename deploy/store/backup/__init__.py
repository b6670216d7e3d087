"""Backups of a home: encrypted, incremental, consistent while runs continue."""
