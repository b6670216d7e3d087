"""redact: counts without values, the same bytes by tasks, originals that only the key restores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, Dataset, UserError
from raypath.components.core.columns import Column
from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.privacy.keys import ensure_key, key_folder
from raypath.components.privacy.restore import restore
from raypath.components.redact import RedactParams, redact

MESSAGES = {
    "messages": [
        {"role": "user", "content": "mail me at anna.novak@web.de"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "type": "function",
                    "function": {"name": "send", "arguments": '{"to": "anna.novak@web.de", "phone": 13812345678}'},
                }
            ],
        },
    ],
    "tools": [{"type": "function", "function": {"name": "send", "description": "mail to help@example.com"}}],
}
Redacting = Callable[..., tuple[Context, Dataset, list[dict[str, Any]]]]


@pytest.fixture
def redacting(tmp_path: Path, make_context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> Redacting:
    """`redacting(rows, columns=(), **params)` -> the context, the dataset and its rows."""
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))

    def run(rows: list[dict[str, Any]], columns: tuple[Column, ...] = (), **fields: Any) -> Any:
        ctx = make_context("redact")
        table = pa.Table.from_pylist(rows)
        with TableWriter(tmp_path / "source", table.schema) as writer:
            writer.write(table)
        data = Dataset(uri=str(tmp_path / "source"), rows=len(rows), columns=columns, source="a.csv")
        made = redact.fn(ctx, data, RedactParams(enabled=True, **fields))
        return ctx, made, pq.read_table(ctx.out / made.uri).to_pylist()

    return run


def test_texts_are_redacted_and_counted_without_values(redacting: Redacting) -> None:
    rows = [
        {"text": "mail anna.novak@web.de or +49 30 1234567", "label": "a@b.de"},
        {"text": "fine", "label": "x"},
        {"text": None, "label": "x"},
    ]
    ctx, made, found = redacting(rows)
    assert [row["text"] for row in found] == ["mail <EMAIL> or <PHONE>", "fine", None]
    assert [row["label"] for row in found] == ["a@b.de", "x", "x"]
    assert made.redaction is not None
    assert made.redaction.key == ""
    report = json.loads((ctx.out / "report.json").read_text())
    assert (report["rows"], report["redacted_rows"], report["counts"]) == (3, 1, {"email": 1, "phone": 1})
    for path in ctx.out.glob("report.*"):
        assert "anna" not in path.read_text()
        assert "1234567" not in path.read_text()
        assert path.stat().st_mode & 0o077 == 0


def test_several_columns_keep_other_kinds(redacting: Redacting) -> None:
    columns = (Column(name="title", stored="input.title"), Column(name="price", kind="number", stored="input.price"))
    _, _, found = redacting([{"input.title": "ring 0171 1234567", "input.price": 13812345678.0}], columns)
    assert found == [{"input.title": "ring <PHONE>", "input.price": 13812345678.0}]


def test_messages_keep_roles_tools_and_json(redacting: Redacting) -> None:
    column = Column(name="messages", kind="messages", stored="input.messages")
    _, _, found = redacting([{"input.messages": json.dumps(MESSAGES)}], (column,))
    made = json.loads(found[0]["input.messages"])
    assert [message["role"] for message in made["messages"]] == ["user", "assistant"]
    assert made["messages"][0]["content"] == "mail me at <EMAIL>"
    call = made["messages"][1]["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("send", {"to": "<EMAIL>", "phone": "<PHONE>"})
    assert made["tools"] == MESSAGES["tools"]


def test_preference_pairs_are_redacted_on_both_sides(redacting: Redacting) -> None:
    answer = [{"role": "assistant", "content": "IBAN DE89370400440532013000"}]
    pair = {"messages": [{"role": "user", "content": "card 4111 1111 1111 1111"}], "chosen": answer, "rejected": answer}
    column = Column(name="pair", kind="preference", stored="input.pair")
    _, _, found = redacting([{"input.pair": json.dumps(pair)}], (column,))
    made = json.loads(found[0]["input.pair"])
    texts = [made[side][0]["content"] for side in ("messages", "chosen", "rejected")]
    assert texts == ["card <CARD>", "IBAN <IBAN>", "IBAN <IBAN>"]


def test_surrogates_are_consistent_and_restored_with_the_key_alone(redacting: Redacting) -> None:
    rows = [{"text": f"row {n}: anna.novak@web.de"} for n in range(3)] + [{"text": "fine"}]
    ctx, made, found = redacting(rows, replacement="surrogate", reversible=True)
    texts = [row["text"] for row in found]
    assert len({text.partition(": ")[2] for text in texts[:3]}) == 1
    assert "anna.novak@web.de" not in "".join(texts)
    assert texts[3] == "fine"
    key = ensure_key(ctx.signing)
    assert made.redaction is not None
    assert made.redaction.key == key.id
    assert (key_folder(ctx.signing) / f"{key.id}.key").stat().st_mode & 0o077 == 0
    stored = b"".join(path.read_bytes() for path in ctx.out.rglob("*") if path.is_file())
    assert b"novak" not in stored
    assert key.secret not in stored
    assert restore(ctx.out / made.uri, key_folder(ctx.signing)).to_pylist() == rows
    (key_folder(ctx.signing) / f"{key.id}.key").unlink()
    with pytest.raises(DataError, match="is not here"):
        restore(ctx.out / made.uri, key_folder(ctx.signing))


def test_a_step_without_a_home_makes_no_key(
    redacting: Redacting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be left in the folder where the step happened to run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYPATH_HOME", raising=False)
    with pytest.raises(UserError, match="no home for the redaction key"):
        redacting([{"text": "anna.novak@web.de"}], replacement="hash")
    assert not list(tmp_path.rglob("*.key"))
    monkeypatch.setenv("RAYPATH_REDACTION_KEY", "ab" * 32)
    _, _, found = redacting([{"text": "anna.novak@web.de"}], replacement="hash")
    assert found[0]["text"].startswith("<EMAIL:")
    assert not list(tmp_path.rglob("*.key"))


def test_a_dataset_without_texts_is_an_error(redacting: Redacting) -> None:
    with pytest.raises(DataError, match="no input column is a text"):
        redacting([{"input.price": 1.0}], (Column(name="price", kind="number", stored="input.price"),))


def test_tasks_write_the_same_rows_and_counts(
    redacting: Redacting, ray_head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"row {n} mail a{n}@web.de"} for n in range(50)] + [{"text": "fine"}]
    ctx, _, found = redacting(rows, reversible=True)
    reports = json.loads((ctx.out / "report.json").read_text())
    monkeypatch.setattr("raypath.components.data.streaming.stream.is_small", lambda files: False)
    other, _, again = redacting(rows, reversible=True)
    assert again == found
    assert json.loads((other.out / "report.json").read_text()) == reports
    originals = [pq.read_table(each.out / "originals" / "00000.parquet") for each in (ctx, other)]
    assert originals[0] == originals[1]
