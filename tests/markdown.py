"""Code blocks of the documentation, and the marks that say how a block is tested.

A mark is an HTML comment in the line before the block:

    <!-- needs: cluster -->     not run; its commands and settings are checked
    <!-- needs: checkout -->    the same, for what clones, installs or takes minutes
    <!-- part of: FILE -->      lines of a file of the repository, in its order
    <!-- file: NAME -->         saved under this name in the project's folder, for the blocks that follow

A block of Bash or Python without a mark is run as it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHELL, PYTHON = ("bash", "sh", "shell", "console"), ("python", "pycon")
KNOWN = (*SHELL, *PYTHON, "text", "yaml", "json")
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[a-z ]+): (?P<value>[^>]+) -->\n)?```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    code: str
    mark: str
    value: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language in ("bash", "python") and not self.mark

    def commands(self, name: str) -> list[str]:
        """Lines of a shell block that begin with a command, continued lines joined, without comments."""
        text = self.code.replace("\\\n", " ")
        found = re.findall(rf"^(?:\$ )?({name} .*?)(?:\s+#.*|\s&)?$", text, re.MULTILINE)
        return [line for line in found if self.language in SHELL]


def pages() -> list[str]:
    """Files of the documentation: README and docs in reading order, then the others."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    names = [line for tree in re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL) for line in tree.splitlines()]
    docs = [f"docs/{name}.md" for name in names if name and not name.startswith(":")]
    return ["README.md", "docs/index.md", *docs, "ARCHITECTURE.md", "CONTRIBUTING.md", "k8s/README.md"]


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page, MyST directives left out."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        if not match["language"].startswith("{"):
            line = text.count("\n", 0, match.start("language")) + 1
            yield Block(page, line, match["language"], match["code"], match["mark"] or "", match["value"] or "")


def prose(page: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
