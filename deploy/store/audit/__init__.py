"""Audit log of a project: who promoted, exported, ran, or made a key, in a chain of hashes with signed anchors."""
