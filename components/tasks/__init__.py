"""Tasks: one file each, loaded on use. `base` has the interface, `catalog` the names."""
