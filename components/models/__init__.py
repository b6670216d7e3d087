"""Base models: loading, metadata, LoRA, BERT optimizations and bf16."""
