"""Cards: what a model and its data are, for people and for catalogs."""
