"""GGUF, the file format of llama.cpp, Ollama and LM Studio: configuration, tensors and tokenizer of a decoder."""
