"""docs/python-interface.ipynb, executed in a real kernel on a tiny base model."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.deploy.conftest import Programs
from tests.tiny import tiny_bert

ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "docs" / "python-interface.ipynb"


def _result(cell: Any) -> Any:
    """The value of a cell's last line."""
    texts = [out["data"]["text/plain"] for out in cell.outputs if out.output_type == "execute_result"]
    return ast.literal_eval(texts[-1])


@pytest.mark.slow
@pytest.mark.usefixtures("last_of_programs")
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_goes_from_data_to_predictions(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RAYPATH_HOME": str(programs.home), "PYTHONPATH": str(ROOT / "src")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    book: Any = nbformat.read(NOTEBOOK, as_version=4)
    at = next(n for n, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", ()))
    tiny = f"base, learning_rate, epochs = {str(tiny_bert(tmp_path / 'base'))!r}, 5e-3, 8"
    book.cells.insert(at + 1, nbformat.v4.new_code_cell(tiny))
    # Random weights need every epoch, and a head that learns no faster than they do. README's run measures precisions.
    patient = 'settings["finetune"] |= {"head_factor": 1.0, "patience": 0}; settings["registry.precision"] = "fp32"'
    after = next(n for n, cell in enumerate(book.cells) if cell.source.startswith("import raypath"))
    book.cells.insert(after + 1, nbformat.v4.new_code_cell(patient))
    NotebookClient(book, timeout=540, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    code = {cell.source: cell for cell in book.cells if cell.cell_type == "code"}
    result = {key: _result(cell) for source, cell in code.items() for key in KEYS if source.startswith(key)}
    planned = dict(result["import raypath"])
    assert len(planned) == 11
    # A step whose settings are those of an earlier run of the home depends on its inputs.
    assert set(planned.values()) <= {"run", "depends"}, "nothing of these rows is there"
    assert (planned["read"], planned["finetune"]) == ("run", "run")
    assert result["run = "][0] == "done"
    assert result["run = "][1]["accuracy"] > 0.9, "the two classes share no word"
    assert "finetune" in result["again = "]
    labels = [label for label, _ in result["model = "]]
    assert labels == result["with run"][0] == ["praise", "complaint"]
    assert result["import asyncio"] == labels * 4
    assert result["raypath.down"] == ["down", "down"]
    shown = [out for cell in code.values() for out in cell.outputs if out.output_type == "display_data"]
    assert any("finetune" in out["data"].get("text/html", "") for out in shown), "the progress is shown in the cell"


KEYS = ("import raypath", "run = ", "again = ", "model = ", "with run", "import asyncio", "raypath.down")
"""How cells begin whose value is looked at."""


def test_the_notebook_is_kept_without_paths_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not [word for word in ("/tmp", "/home", "/root", "/work", "/Users") if word in text]
