"""Namespace packages of the dependencies, each with an `__init__.py`, for the module search path.

Python prefers a module to a namespace package even where the folder of the module is searched later: a `google.py` in
the current folder, which is searched last, would shadow `google.protobuf`. This folder is searched just before it.
"""
