"""OpenAI-compatible chat and text completions of language models."""
