"""Inference: the engine, the registry that models come from, and the Serve application."""
