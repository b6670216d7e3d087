"""Evaluation by generating: rows of a split that are asked, answers and their likelihood, evidence and findings."""
