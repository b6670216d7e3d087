"""Markdown of generated tables."""


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
