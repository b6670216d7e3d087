"""Classification heads: the check that features fit one, and mean pooling below one."""
