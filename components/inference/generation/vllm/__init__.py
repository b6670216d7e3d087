"""vLLM as an engine of generation: continuous batching on GPUs, over several by tensor parallelism."""
