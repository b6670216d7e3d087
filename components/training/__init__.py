"""The one torch loop, packing, checkpoints and tracking."""
