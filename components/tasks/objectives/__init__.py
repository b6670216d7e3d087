"""Training objectives: loss functions and their settings."""
