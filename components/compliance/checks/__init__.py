"""Checks: small functions of evidence and profile that answer for an item, each with the evidence in one sentence."""
