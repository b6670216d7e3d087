"""Folders with modules that have the names of installed packages, and end a process that imports one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

NAMES = ("deploy.py", "components/__init__.py", "workflows/__init__.py", "mlflow.py", "ray.py", "torch.py", "pandas.py")
NAMESPACES = ("google.py", "opentelemetry.py", "mpl_toolkits.py")
"""Modules with the name of a namespace package, which Python takes last of all."""
TRAP = "from pathlib import Path\nPath(__file__ + '.executed').touch()\nraise SystemExit('shadows a package')\n"
FLOW = '''"""A team's own workflow, with a component of its own."""

from raypath.components import Context, Dataset, Params, component, workflow
from raypath.components.core.params import Source


class CopyParams(Params):
    uri: Source = "rows.txt"


class Copy(Params):
    read: CopyParams = CopyParams()


@component(version=1)
def copy(ctx: Context, params: CopyParams) -> Dataset:
    import mlflow  # as steps do that register a model
    from google.protobuf import message
    from opentelemetry import sdk

    assert "site-packages" in message.__file__ + sdk.__path__[0]
    assert "site-packages" in mlflow.__file__
    text = open(params.uri).read()
    (ctx.out / "rows.txt").write_text(text)
    return Dataset(rows=len(text.split()))


@workflow
def flow(p: Copy) -> Dataset:
    return copy(p.read)
'''


@dataclass
class Traps:
    """Two folders with the same names in them: modules that nothing may import, and a team's own workflow."""

    one: Path
    two: Path

    @staticmethod
    def call(folder: Path, home: Path, *args: str) -> subprocess.CompletedProcess[str]:
        """Run `raypath ARGS` in a folder as the installed command does, which does not search that folder."""
        code = "import sys; from raypath.deploy.cli.main import main; sys.exit(main())"
        env = {**os.environ, "RAYPATH_HOME": str(home)}
        command = [sys.executable, "-P", "-c", code, *args]
        return subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=200, check=False)

    def executed(self) -> list[Path]:
        """Modules that were imported after all."""
        return list(self.one.parent.rglob("*.executed"))


def write_traps(root: Path) -> Traps:
    """Write the folders `one`, whose rows.txt has two words, and `two`, whose has five."""
    for name, rows in (("one", "a b"), ("two", "a b c d e")):
        for trap in NAMES + NAMESPACES:
            path = root / name / trap
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(TRAP)
        (root / name / "rows.txt").write_text(rows)
        (root / name / "team").mkdir()
        (root / name / "team" / "__init__.py").touch()
        (root / name / "team" / "flow.py").write_text(FLOW)
    return Traps(root / "one", root / "two")
