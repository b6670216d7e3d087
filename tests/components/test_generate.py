"""Batch generation: files of prompts in, responses out, in order, resumed after a kill; each bad row has its error."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as pa_json
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, Dataset, ParamsError
from raypath.components.generate import GenerateParams, _report_errors, generate
from raypath.components.inference.generation.local_chat import LocalChat
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.components.read_prompts import ReadPromptsParams, read_prompts
from raypath.deploy.cli.language.responses import write_responses
from tests.byte_llama import tiny_chat
from tests.deploy.store.s3 import BUCKET, KEYS, moto

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
ASKED = [{"role": "user", "content": "hé 好"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tiny_chat(tmp_path_factory.mktemp("chat"))
    write_metadata(folder, ModelMetadata(task="text_generation", labels=(), max_length=64))
    return str(folder)


@pytest.fixture
def respond(model: str, tmp_path: Path, make_context: Callable[..., Context], settle: Any) -> Callable[..., list[Any]]:
    """Write lines to a file, run both steps, and return the lines of the output."""

    def respond(lines: list[Any], out: str = "out.jsonl", **params: Any) -> list[Any]:
        path = tmp_path / "in.jsonl"
        path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines))
        ctx = make_context("read_prompts")
        prompts = settle(ctx, read_prompts.fn(ctx, ReadPromptsParams(uri=str(path))))
        ctx = make_context("generate")
        made = generate.fn(ctx, prompts, GenerateParams(model=model, **{"max_new_tokens": 4, **params}))
        assert made.rows == len([line for line in lines if line])
        target = tmp_path / out
        write_responses(ctx.out, target)
        return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]

    return respond


def test_rows_keep_their_keys_and_an_answer_that_is_there_is_not_shown_to_the_model(respond: Any, model: str) -> None:
    lines = [
        {"messages": [*ASKED, {"role": "assistant", "content": "yes"}], "id": 7},
        {"messages": ASKED},
        "",
        {"prompt": "hé 好"},
        {"messages": ASKED, "tools": TOOLS},
    ]
    found = respond(lines)
    [wanted] = LocalChat(Path(model)).generate([ASKED], max_new_tokens=4)
    assert [each["answer"] for each in found[:3]] == [wanted.text] * 3
    assert found[0] == {**lines[0], "answer": wanted.text, "finish_reason": "length"}
    assert found[3]["tools"] == TOOLS


def test_openai_batch_format(respond: Any, model: str) -> None:
    def line(name: str, **body: Any) -> dict[str, Any]:
        call = {"method": "POST", "url": "/v1/chat/completions"}
        return {"custom_id": name, **call, "body": {"model": "m", "messages": ASKED, **body}}

    lines = [
        line("a", max_tokens=2),
        line("b", max_completion_tokens=3, n=1, stream=False, tools=TOOLS, stop=None),
        line("c", response_format={"type": "json_object"}),
        line("d", temperature=-1),
        line("e", messages=[]),
        {**line("f"), "url": "/v1/embeddings"},
        line("g", messages=[{"role": "user", "content": "long " * 300}]),
    ]
    found = respond(lines)
    assert [each["custom_id"] for each in found] == list("abcdefg")
    first = found[0]["response"]
    assert (first["status_code"], found[0]["error"]) == (200, None)
    [wanted] = LocalChat(Path(model)).generate([ASKED], max_new_tokens=2)
    choice = first["body"]["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": wanted.text}
    assert choice["finish_reason"] == "length"
    assert first["body"]["usage"]["completion_tokens"] == 2
    assert first["body"]["model"] == "m"
    assert found[1]["response"]["body"]["usage"]["completion_tokens"] <= 3
    errors = [each["response"]["body"]["error"]["message"] for each in found[2:]]
    assert [each["response"]["status_code"] for each in found[2:]] == [400] * 5
    assert errors[0] == "the request sets response_format, which is not supported"
    assert errors[1].startswith("temperature is -1")
    assert errors[2] == "the request has no messages"
    assert "POST /v1/chat/completions" in errors[3]
    assert errors[4].startswith("the prompt has 1,5")
    assert found[2]["error"]["message"] == errors[0]


def test_parquet_in_and_out(
    model: str, tmp_path: Path, make_context: Callable[..., Context], settle: Any, respond: Any
) -> None:
    rows = [{"messages": ASKED, "id": 3, "tags": ["a", None]}, {"prompt": "b", "id": 4}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa_json.read_json(tmp_path / "rows.jsonl"), tmp_path / "rows.parquet")
    ctx = make_context("read_prompts")
    prompts = settle(ctx, read_prompts.fn(ctx, ReadPromptsParams(uri=str(tmp_path / "rows.parquet"))))
    ctx = make_context("generate")
    generate.fn(ctx, prompts, GenerateParams(model=model, max_new_tokens=4))
    assert write_responses(ctx.out, tmp_path / "out.parquet") == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["messages", "id", "tags", "prompt", "answer", "finish_reason"]
    assert table["id"].to_pylist() == [3, 4]
    assert table["answer"].to_pylist() == [each["answer"] for each in respond(rows)]
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_rows_that_are_too_long_do_not_end_the_others(respond: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = respond([{"prompt": "a"}, {"prompt": "long " * 300}, {"prompt": "b"}])
    assert [each["answer"] is None for each in found] == [False, True, False]
    assert found[1]["error"].startswith("the prompt has 1,5")
    assert "error" not in found[0]
    assert "1 row has no response; row 2: the prompt has 1,5" in caplog.text
    with pytest.raises(DataError, match="no row has a response; row 1: the prompt has"):
        respond([{"prompt": "long " * 300}])


def test_the_first_of_the_rows_without_a_response_is_named(
    make_context: Callable[..., Context], caplog: pytest.LogCaptureFixture
) -> None:
    ctx = make_context("generate")
    for n, errors in enumerate((["", ""], ["", "long"], ["empty", "none"])):
        table = {"row": [2 * n + 1, 2 * n + 2], "answer_tokens": [3, 4], "error": errors}
        pq.write_table(pa.table(table), ctx.out / f"{n:05d}.parquet")
    _report_errors(ctx, 6)
    assert caplog.messages == ["3 rows have no response; row 4: long"]
    with pytest.raises(DataError, match="no row has a response; row 4: long"):
        _report_errors(ctx, 3)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "in.jsonl"),
        ("[1]", "in.jsonl line 2 is not a JSON object"),
        ({"prompt": "a", "id": "\ud800"}, "row 2 has a lone surrogate"),
        ({"text": "a"}, "row 2 has no conversation"),
        ({"messages": []}, "row 2 has no conversation"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "row 2 has no conversation"),
        ({"messages": [{"role": "user", "content": 3}]}, "row 2 has a message whose content is a int"),
        ({"prompt": "a", "tools": ["look"]}, "row 2 has a tool without the name of a function"),
        ({"custom_id": 3, "body": {}}, "row 2 has a custom_id that is not text"),
    ],
)
def test_a_row_without_a_conversation_is_named(respond: Any, line: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        respond([{"prompt": "a"}, line])


def test_files_of_other_kinds(tmp_path: Path, make_context: Callable[..., Context]) -> None:
    (tmp_path / "in.csv").write_text("prompt\na\n")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "a"}\n{"prompt": "\xe9"}\n')
    for name, what in (
        ("in.csv", "in.csv is neither jsonl, json nor parquet; name its column of prompts with -s read.text=COLUMN"),
        ("empty.jsonl", "empty.jsonl has no rows"),
        ("latin.jsonl", "latin.jsonl"),
    ):
        with pytest.raises(DataError, match=what):
            read_prompts.fn(make_context("read_prompts"), ReadPromptsParams(uri=str(tmp_path / name)))
    with pytest.raises(DataError, match="there is no file of prompts"):
        read_prompts.fn(make_context("read_prompts"), ReadPromptsParams())
    with pytest.raises(ParamsError, match="setting model got nothing"):
        generate.fn(make_context("generate"), Dataset(rows=0), GenerateParams())


SCRIPT = """
import sys
from pathlib import Path
from raypath.components import Context, Dataset
from raypath.components.generate import GenerateParams, _report_errors, generate
out, scratch, uri, model, rows = sys.argv[1:]
ctx = Context(step="generate", out=Path(out), scratch=Path(scratch), seed=0)
generate.fn(ctx, Dataset(uri=uri, rows=int(rows)), GenerateParams(model=model, max_new_tokens=24, batch=16))
"""


def test_a_killed_step_resumes_with_the_chunks_that_are_left(
    model: str, tmp_path: Path, make_context: Callable[..., Context], settle: Any
) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"prompt": f"{n} hello"}) + "\n" for n in range(160)))
    ctx = make_context("read_prompts")
    prompts = settle(ctx, read_prompts.fn(ctx, ReadPromptsParams(uri=str(tmp_path / "in.jsonl"))))
    ctx = make_context("generate")
    chunks = ctx.scratch / "chunks"
    args = [str(tmp_path / "out"), str(ctx.scratch), prompts.uri, model, "160"]
    (tmp_path / "out").mkdir()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *args], env=env)
    try:
        end = time.monotonic() + 120
        while len(list(chunks.glob("*.parquet"))) < 2:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in chunks.glob("*.parquet")}
    params = GenerateParams(model=model, max_new_tokens=24, batch=16)
    generate.fn(ctx, prompts, params)
    assert {name: (chunks / name).stat().st_mtime_ns for name in done} == done
    assert len(done) < len(list(chunks.glob("*.parquet")))
    resumed = pq.read_table(ctx.out)
    assert resumed["row"].to_pylist() == list(range(1, 161))
    fresh = dataclasses.replace(make_context("generate"), scratch=tmp_path / "other")
    generate.fn(fresh, prompts, params)
    assert pq.read_table(fresh.out).equals(resumed)


def test_several_workers_read_from_a_bucket_and_resume_by_part(
    model: str,
    tmp_path: Path,
    make_context: Callable[..., Context],
    settle: Any,
    ray_head: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Prompts in S3; two workers of Ray Data; parts that are there are not made again, whatever number of workers."""
    import obstore

    from raypath.components.data.sources.object_storage import open_bucket

    lines = "".join(json.dumps({"prompt": f"{n} hello"}) + "\n" for n in range(64))
    with moto() as address:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
            monkeypatch.setenv(name, value)
        obstore.put(open_bucket(BUCKET, "batch"), "in.jsonl", lines.encode())
        ctx = make_context("read_prompts")
        uri = f"s3://{BUCKET}/batch/in.jsonl"
        prompts = settle(ctx, read_prompts.fn(ctx, ReadPromptsParams(uri=uri)))
    params = GenerateParams(model=model, max_new_tokens=8, batch=16, actors=2)
    ctx = make_context("generate")
    generate.fn(ctx, prompts, params)
    parts = sorted((ctx.scratch / "chunks").glob("*.parquet"))
    assert len(parts) > 4
    kept = {path.name: path.stat().st_mtime_ns for path in parts[::2]}
    for path in parts[1::2]:
        path.unlink()
    again = dataclasses.replace(make_context("generate"), scratch=ctx.scratch)
    generate.fn(again, prompts, params.override({"actors": 1}))
    assert {name: (ctx.scratch / "chunks" / name).stat().st_mtime_ns for name in kept} == kept
    alone = make_context("generate")
    generate.fn(alone, prompts, params.override({"actors": 0}))
    found = pq.read_table(alone.out)
    assert found["row"].to_pylist() == list(range(1, 65))
    assert pq.read_table(ctx.out).equals(found)
    assert pq.read_table(again.out).equals(found)
