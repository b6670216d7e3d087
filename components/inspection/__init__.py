"""The data report: statistics of the rows in one pass, faults found in them, and the page that shows both."""
