"""Report on the answers of a language model: metrics before and after training, samples side by side."""
