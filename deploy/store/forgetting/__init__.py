"""Forget a subject: find its rows in a store, and remove these and all that was made of them.

Artifacts are named by their contents, so that rows are not cut out of them: the artifact goes, and the step runs again
on data without the subject.
"""
