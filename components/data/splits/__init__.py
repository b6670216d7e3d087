"""Train, valid and test splits: assignment, stratification, label statistics, overlap."""
