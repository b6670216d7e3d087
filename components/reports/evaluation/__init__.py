"""The report on an evaluation: its contents as plain values, and its page."""
