"""Heads on encrypted features: CKKS parameters, packing, keys, evaluation; nothing of HTTP."""
