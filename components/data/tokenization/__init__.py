"""Tokenization: texts and pairs of texts to token ids."""
