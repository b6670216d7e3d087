"""The digest of a component's code: meaning counts, comments do not, imports are followed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypath.components.training.params import FinetuneParams
from raypath.deploy.execution import cache_key as plan
from raypath.deploy.execution import code_digest as sources


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "sub" / "__init__.py").write_text("")
    (folder / "step.py").write_text("def step():\n    from mine.sub import deep\n    return deep.value()\n")
    (folder / "sub" / "deep.py").write_text("from . import near\n\ndef value():\n    return near.ONE\n")
    (folder / "sub" / "near.py").write_text("ONE = 1\n")
    (folder / "other.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]
    sources._file.cache_clear()


def _digest() -> str:
    sources._read.cache_clear()
    return sources.source_digest("mine.step")


def test_a_change_in_what_is_imported_counts_at_any_depth(package: Path) -> None:
    before = _digest()
    (package / "sub" / "near.py").write_text("ONE = 2\n")
    assert _digest() != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("step.py", "from mine.sub import deep", "import mine.other"),
        ("step.py", "from mine.sub import deep", "from mine import other"),
        ("step.py", "from mine.sub import deep", "from .other import X"),
        ("step.py", "from mine.sub import deep", "task = 'mine.other:Mine'"),
        ("sub/deep.py", "from . import near", "from .. import other"),
        ("sub/deep.py", "from . import near", "from ..other import X"),
        ("sub/__init__.py", "", "from . import extra\n"),
        ("sub/__init__.py", "", "from .extra import X\n"),
    ],
)
def test_every_kind_of_import_is_followed(package: Path, file: str, old: str, new: str) -> None:
    (package / "sub" / "extra.py").write_text("X = 1\n")
    (package / file).write_text((package / file).read_text().replace(old, new))
    imported = package / ("sub/extra.py" if "extra" in new else "other.py")
    before = _digest()
    imported.write_text("X = 1  # one\n")
    assert _digest() == before
    imported.write_text("X = 2\n")
    assert _digest() != before


def test_a_changed_file_is_read_anew(package: Path) -> None:
    before = sources.source_digest("mine.step")
    (package / "sub" / "near.py").write_text("ONE = 2\n")
    assert sources.source_digest("mine.step") != before


def test_comments_layout_and_unrelated_files_do_not_count(package: Path) -> None:
    before = _digest()
    (package / "sub" / "near.py").write_text("# one\nONE  =  1\n")
    (package / "other.py").write_text("X = 2\n")
    assert _digest() == before


def test_a_class_that_a_setting_names_counts_with_its_code(package: Path) -> None:
    params = FinetuneParams(task="mine.sub.near:Mine")
    before = plan.settings_of("params", params, "finetune")
    sources._read.cache_clear()
    (package / "sub" / "near.py").write_text("ONE = 2\n")
    after = plan.settings_of("params", params, "finetune")
    assert {name for name in after if before[name] != after[name]} == {"code of mine.sub.near:Mine"}


def test_nothing_is_imported_on_the_way() -> None:
    code = (
        "import sys; from raypath.deploy.execution import code_digest as c; c.source_digest('raypath.components.tune');"
    )
    code += "print(sorted({'ray', 'torch', 'mlflow', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_our_own_steps_follow_the_core_but_not_each_other() -> None:
    found = sources.source_digest("raypath.components.split")
    assert found == sources.source_digest("raypath.components.split")
    assert found != sources.source_digest("raypath.components.read")
