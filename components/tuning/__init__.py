"""Hyperparameter tuning: search space, trials, journal, population based training."""
