"""Labels: classes, sets of classes, and rewriting the labels of a dataset."""
