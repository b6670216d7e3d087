"""Settings from a YAML file: what YAML has and JSON has not, and a key given twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypath.components.core.errors import ParamsError
from raypath.deploy.execution.overrides import from_file
from raypath.workflows.text_classification import TextClassification


def _file(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text", ["finetune: {lr: 1e-3}\nfinetune: {epochs: 2}\n", "finetune:\n  lr: 1e-3\n  lr: 2e-3\n"]
)
def test_a_key_given_twice_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ParamsError, match=r"(finetune|lr) is given twice.* line [23]"):
        from_file(_file(tmp_path, text))


def test_anchors_and_merges(tmp_path: Path) -> None:
    text = "a: &a {lr: 1.0e-3, epochs: 2}\nfinetune: {<<: *a, epochs: 3}\ntune: {<<: *a}\n"
    found = from_file(_file(tmp_path, text))
    assert (found["finetune.lr"], found["finetune.epochs"], found["tune.epochs"]) == (1e-3, 3, 2)


@pytest.mark.parametrize(
    ("text", "key", "kind"),
    [("read: {uri: 2026-11-01}", "read.uri", "date"), ("tune: {lr: !!set {a}}", "tune.lr", "set")],
)
def test_values_that_only_yaml_has(tmp_path: Path, text: str, key: str, kind: str) -> None:
    with pytest.raises(ParamsError, match=f"setting {key} is a {kind}; give text, a number"):
        TextClassification().override(from_file(_file(tmp_path, text)))


def test_a_file_that_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        from_file(tmp_path / "none.yaml")
    assert str(caught.value) == f"-f {tmp_path / 'none.yaml'}: No such file or directory; give a readable YAML file"
