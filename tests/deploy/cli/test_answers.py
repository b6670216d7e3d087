"""`raypath predict` with a language model: lines of conversations in, the same lines with answers out."""

import json
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.deploy.cli.predict import predict_file
from tests.byte_llama import tiny_chat


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tiny_chat(tmp_path_factory.mktemp("chat"))
    write_metadata(folder, ModelMetadata(task="text_generation", labels=(), max_length=64))
    return str(folder)


def run(model: str, place: Path, lines: list[Any], *settings: str, out: str | None = "out.jsonl") -> list[Any]:
    (place / "in.jsonl").write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines))
    target = place / out if out else None
    said = predict_file(place, model, str(place / "in.jsonl"), target, ["max_new_tokens=4", *settings])
    written = target or place / "in.predictions.jsonl"
    assert said == f"{len([line for line in lines if line])} responses in {written}"
    return [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]


def test_an_answer_that_is_there_is_not_shown_to_the_model(model: str, tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "hé 好"}]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    lines = [
        {"messages": [*asked, {"role": "assistant", "content": "yes"}], "id": 7},
        {"messages": asked},
        "",
        {"prompt": "hé 好"},
        {"messages": asked, "tools": tools},
    ]
    found = run(model, tmp_path, lines)
    assert [each["answer"] for each in found[:3]] == [found[0]["answer"]] * 3
    assert found[0]["messages"] == lines[0]["messages"]  # type: ignore[index]
    assert (found[0]["id"], found[3]["tools"]) == (7, tools)


def test_the_output_has_a_name_of_its_own(model: str, tmp_path: Path) -> None:
    (tmp_path / "in.predictions.csv").touch()  # of a classifier
    assert len(run(model, tmp_path, [{"prompt": "a"}], out=None)) == 1
    with pytest.raises(ParamsError, match=r"in\.predictions\.jsonl exists"):
        run(model, tmp_path, [{"prompt": "a"}], out=None)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "line 2 of .* is not JSON in UTF-8"),
        ("[1]", "line 2 of .* has no conversation"),
        ({"prompt": "a", "id": "\ud800"}, "line 2 of .* has a lone surrogate"),
        ({"text": "a"}, "line 2 of .* has no conversation"),
        ({"messages": []}, "line 2 of .* has no conversation"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "line 2 of .* has no conversation"),
        ({"messages": [{"role": "user", "content": 3}]}, "line 2 of .* has a message whose content is a int"),
        ({"prompt": "a", "tools": ["look"]}, "line 2 of .* has a tool without the name of a function"),
    ],
)
def test_a_line_without_a_conversation_is_named_and_nothing_is_written(
    model: str, tmp_path: Path, line: Any, what: str
) -> None:
    with pytest.raises(DataError, match=what):
        run(model, tmp_path, [{"prompt": "a"}, line])
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_other_encodings(model: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\n{"prompt": "\xe9"}\n')
    with pytest.raises(DataError, match=r"line 2 of .* is not JSON in UTF-8"):
        predict_file(tmp_path, model, str(tmp_path / "in.jsonl"), tmp_path / "out.jsonl", [])


def test_other_formats_and_settings_are_rejected(model: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="responses are written as JSON lines"):
        run(model, tmp_path, [{"prompt": "a"}], out="out.csv")
    with pytest.raises(ParamsError, match="unknown setting warmth"):
        run(model, tmp_path, [{"prompt": "a"}], "warmth=1")
    (tmp_path / "rows.csv").write_text("prompt\na\n")
    with pytest.raises(ParamsError, match="is not a JSON lines file"):
        predict_file(tmp_path, model, str(tmp_path / "rows.csv"), tmp_path / "out.jsonl", [])
    with pytest.raises(DataError, match="has no lines"):
        run(model, tmp_path, [])
    assert not (tmp_path / "out.jsonl").exists()
