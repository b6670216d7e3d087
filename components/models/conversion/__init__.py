"""Conversion of models in other formats to the folders of transformers."""
