"""Decoders: packed batches, attention inside rows, loss in chunks, adapters, faster layers."""
