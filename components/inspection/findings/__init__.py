"""Findings: what the statistics of the rows say about faults, and the settings that mend them."""
