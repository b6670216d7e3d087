"""A Ray Serve replica: models in memory, rollouts, registry watcher."""
