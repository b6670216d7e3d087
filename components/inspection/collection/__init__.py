"""Collect the statistics of the rows in one pass, in this process or in tasks, with values of rows in files."""
