"""Personal data in texts: recognisers, replacement, and the filter of generated text."""
