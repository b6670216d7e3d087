"""Evaluation by generating: prompts of a split, answers and their likelihood, evidence and findings."""
