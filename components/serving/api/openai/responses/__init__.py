"""OpenAI-compatible responses: the newer interface of conversations."""
