"""In which order: nothing but workflows. Each file draws a graph of components."""
