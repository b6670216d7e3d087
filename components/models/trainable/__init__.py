"""Parameters that are trained: frozen layers, and adapters in place of full matrices."""
