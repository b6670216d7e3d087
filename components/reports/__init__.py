"""HTML reports: the page that they share, and the report on an evaluation."""
