"""Generation with encoder-decoders: translations, summaries and other texts for a text."""
