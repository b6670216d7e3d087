"""The report as files: one HTML page that needs no network, JSON, and the numbers of all rows found."""
