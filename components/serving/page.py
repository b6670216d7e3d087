"""A page where a person tries the model: one file, no assets from elsewhere, nothing sent but to this service."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path

from fastapi import Response

_FILE = Path(__file__).with_name("page.html")


def page(name: str) -> Response:
    """The page for the model of this name."""
    text = _FILE.read_text(encoding="utf-8").replace("{{name}}", html.escape(name))
    return Response(text, media_type="text/html; charset=utf-8", headers=_headers(text))


def _headers(text: str) -> dict[str, str]:
    allowed = {tag: _hashes(text, tag) for tag in ("script", "style")}
    policy = f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; connect-src 'self'; "
    return {
        "content-security-policy": policy + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }


def _hashes(text: str, tag: str) -> str:
    """What a browser may run: exactly what stands in the file."""
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
