"""What a report is made of: intervals and plots."""
