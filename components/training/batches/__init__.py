"""Training batches: token datasets, the batch sampler, frozen features."""
