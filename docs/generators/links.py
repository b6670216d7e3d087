"""Links between files of the repository as links of the site."""

import re
from pathlib import Path

from sphinx.util import logging

ROOT = Path(__file__).parent.parent.parent
INCLUDED = {
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "k8s/README.md": "kubernetes.md",
    "README.md": "index.md",
}
"""Files of the repository that are pages of the site."""
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_LOG = logging.getLogger(__name__)


def resolve_links(text: str, path: Path) -> str:
    """Rewrite links between files of the repository as links of the site.

    A link to a file that is no page becomes the file's path. A link to a file that does not exist is a warning.
    """

    def replace(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        found = (path.parent / target).resolve()
        if not found.exists():
            _LOG.warning("%s links to %s, which does not exist", path.name, target)
            return label
        name = found.relative_to(ROOT).as_posix()
        if name in INCLUDED:
            return f"[{label}]({INCLUDED[name]}{anchor})"
        if name.startswith("docs/"):
            return f"[{label}]({name.removeprefix('docs/')}{anchor})"
        return label if label.strip("`") == name else f"{label} (`{name}`)"

    return _LINK.sub(replace, text)
