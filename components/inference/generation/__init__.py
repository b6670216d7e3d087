"""Text generation: greedy decoding or sampling, with one protocol for all engines."""
