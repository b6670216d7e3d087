"""Streaming of rows in blocks, in the step's process or with Ray Data."""
