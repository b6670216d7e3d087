"""A team's own packages of components and workflows, beside modules that have the names of folders of Raypath."""

from __future__ import annotations

from pathlib import Path

WORKFLOW = "acme.flows.counting:counted"
TRAPS = ("deploy.py", "components/__init__.py", "workflows/__init__.py")
_FILES = {
    "acme/__init__.py": "",
    "acme/flows/__init__.py": "",
    "acme/flows/counting.py": '''"""Count twice."""

from components_acme.counting import CountParams, count
from raypath import Dataset, Params, workflow


class Counted(Params):
    """Two steps."""

    first: CountParams = CountParams()
    second: CountParams = CountParams(more=2)


@workflow
def counted(p: Counted) -> Dataset:
    """Count, and count on."""
    return count(p.second, count(p.first))
''',
    "components_acme/__init__.py": "",
    "components_acme/counting.py": '''"""A component with a helper beside it."""

from raypath import Context, Dataset, Params, component

from .words import WORD


class CountParams(Params):
    """Number of rows."""

    more: int = 1
    """Rows to add."""


@component(version=1)
def count(ctx: Context, params: CountParams, before: Dataset | None = None) -> Dataset:
    """Write a word for each row."""
    rows = params.more + (before.rows if before else 0)
    (ctx.out / "words.txt").write_text(" ".join([WORD] * rows))
    return Dataset(rows=rows, label_kind="none", source="")
''',
    "components_acme/words.py": 'WORD = "tea"\n',
}
_TRAP = "from pathlib import Path\nPath(__file__ + '.executed').touch()\nraise SystemExit('a trap was executed')\n"


def write_packages(folder: Path) -> None:
    """Write the packages and the traps."""
    for name, text in {**_FILES, **dict.fromkeys(TRAPS, _TRAP)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
