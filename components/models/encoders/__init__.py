"""Encoders: faster BERT, and token types of text pairs."""
