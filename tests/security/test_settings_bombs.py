"""Files of settings that take memory or the stack: they are rejected in one line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from raypath.components.core.errors import ParamsError
from raypath.deploy.execution.overrides import from_file, from_line
from raypath.deploy.triggers.webhook import _event

LEVELS = range(1, 30)
LAUGHS = "a0: &a0 {k0: 1, k1: 2}\n" + "".join(
    f"a{n}: &a{n} {{" + ", ".join(f"k{m}: *a{n - 1}" for m in range(9)) + "}\n" for n in LEVELS
)
LISTS = "a0: &a0 [1, 2]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in LEVELS)
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in LEVELS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "has more than 20,000 values, its aliases"),
        (LISTS, "has more than 20,000 values, its aliases"),
        (MERGES, "has more than 20,000 values, its aliases"),
        ("a: &a [*a, *a]", "has more than 20,000 values, its aliases"),
        ("a: &a {b: *a, c: *a}", "has more than 20,000 values, its aliases"),
        ("\n" + "{a: " * 20_000 + "}" * 20_000, "line 2 is nested more than 50 levels deep"),
        ("a: " + "[" * 200_000, "line 1 is nested more than 50 levels deep"),
        ("- " * 200_000, "line 1 is nested more than 50 levels deep"),
        ("a: " + "b" * (1 << 20), "is larger than 1 MiB"),
        ("finetune: {epochs: 1, epochs: 2}", "epochs is given twice"),
    ],
    ids=["mappings", "lists", "merges", "itself", "itself in a mapping", "deep", "open", "block", "large", "twice"],
)
def test_bombs(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ParamsError) as caught:
        from_file(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.process_time() - began < 20


def test_a_file_without_an_end() -> None:
    with pytest.raises(ParamsError, match="is larger than 1 MiB"):
        from_file(Path("/dev/zero"))


def test_aliases_of_usual_files(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("read: &read {text: body, label: &y [a, b]}\nsplit: {<<: *read, test: 0.1}\nmore: *y\n")
    assert from_file(path) == {
        "read.text": "body",
        "read.label": ["a", "b"],
        "split.text": "body",
        "split.label": ["a", "b"],
        "split.test": 0.1,
        "more": ["a", "b"],
    }
    path.write_text("")
    assert from_file(path) == {}


def test_deep_json_of_others() -> None:
    assert _event(b"[" * 200_000) is None
    assert from_line(["a=" + "[" * 200_000])
