"""MLflow flavor of a version: its signature and example, and the code of classifiers that is stored with it."""
