"""Base models: loading, chat templates, metadata, LoRA, BERT optimizations and bf16."""
