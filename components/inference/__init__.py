"""Model inference: engine, backends, dynamic batching and precision selection."""
