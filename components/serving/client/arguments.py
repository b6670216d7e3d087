"""Checks of the arguments of a client."""

from __future__ import annotations

from urllib.parse import urlsplit

from raypath.components.core.errors import UserError


def checked_url(url: str) -> str:
    """Return the URL without a trailing slash. Raises UserError for one that is not http or https."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, TypeError, AttributeError):
        good = False
    if not good or not isinstance(url, str) or any(character.isspace() for character in url):
        raise UserError(f"got url {url!r}; wanted http://... or https://...", fix="see `raypath status`")
    return url.rstrip("/")


def checked_key(key: str) -> str:
    """Return the key without blanks around it. Raises UserError; the message does not contain the key."""
    if not isinstance(key, str):
        raise UserError(f"key is a {type(key).__name__}", fix="give the text of the key")
    if not key.isascii() or not key.strip().isprintable():
        raise UserError("key has characters that no key has", fix="give the text that `raypath keys create` printed")
    return key.strip()


def checked_number(name: str, value: float) -> float:
    """Return a number above 0. Raises UserError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{name}={value!r}; wanted a number above 0", fix=f"see `help(raypath.Client)` for {name}")
    return value
