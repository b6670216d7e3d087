"""Process groups, devices, memory, compilation and profiling."""
