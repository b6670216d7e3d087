"""Report on the generated text of a language model: metrics before and after training, samples side by side."""
