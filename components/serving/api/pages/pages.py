"""The pages of a service, for a person: no assets from elsewhere, nothing sent but to this service.

Each is head.html, which they begin with, and a file of its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path

from fastapi import Response

SAFE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""Headers of every answer: a browser takes it for nothing else, shows it in no frame and keeps it nowhere."""


def page(name: str) -> Response:
    """The page where the model of this name is tried."""
    return _page("page.html", name, "Raypath")


def chat_page(name: str) -> Response:
    """The page where a person chats with the language model of this name."""
    return _page("chat.html", name, "chat")


def docs(name: str) -> Response:
    """The page that tells of the interface, as /openapi.json has it."""
    return _page("docs.html", name, "interface")


def _page(file: str, name: str, title: str) -> Response:
    text = "".join(Path(__file__).with_name(part).read_text(encoding="utf-8") for part in ("head.html", file))
    text = text.replace("{{title}}", title).replace("{{name}}", html.escape(name))
    return Response(text, media_type="text/html; charset=utf-8", headers={**SAFE, **_policy(text)})


def _policy(text: str) -> dict[str, str]:
    allowed = {tag: _hashes(text, tag) for tag in ("script", "style")}
    policy = f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; connect-src 'self'; "
    return {"content-security-policy": policy + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}


def _hashes(text: str, tag: str) -> str:
    """Return the hashes of the scripts or styles in the page, the only ones that a browser may run."""
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
