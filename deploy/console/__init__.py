"""Live view and run reports in a terminal."""
