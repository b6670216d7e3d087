"""Files of responses: the rows of the input with their responses, or OpenAI's batch format."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.core.files import disk_full_as_store_error, new_file
from raypath.components.inference.generation.requests import is_batch_format

FORMATS = (".jsonl", ".parquet")
ANSWER, FINISH, ERROR = "answer", "finish_reason", "error"
"""Keys of the response in a row of the output."""


def write_responses(folder: str | Path, target: Path) -> int:
    """Write the result of `generate` to a file, atomically; returns the number of rows without a response.

    Raises StoreError for a full disk, DataError for rows whose values have no common Parquet type.
    """
    failed = 0
    lines = target if target.suffix == ".jsonl" else target.with_name(f".{target.name}.{secrets.token_hex(8)}.jsonl")
    try:
        with disk_full_as_store_error(f"no space left for {target}"), new_file(lines) as file:
            for row in _rows(folder):
                failed += bool(row[ERROR])
                file.write((json.dumps(_line(row), ensure_ascii=False) + "\n").encode())
        if lines != target:
            _to_parquet(lines, target)
    finally:
        if lines != target:
            lines.unlink(missing_ok=True)
    return failed


def _rows(folder: str | Path) -> Iterator[dict[str, Any]]:
    from raypath.components.data.streaming.parquet import scan

    for table in scan(folder):
        yield from table.to_pylist()


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the output."""
    record = json.loads(row["record"])
    if is_batch_format(record):
        return _batch_line(record, row)
    made = {**record, ANSWER: row["answer"], FINISH: row["finish_reason"]}
    return {**made, ERROR: row["error"]} if row["error"] else made


def _batch_line(record: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of OpenAI's batch output."""
    number = f"{row['row']}"
    if row["error"]:
        problem = {"message": row["error"], "type": "invalid_request_error", "param": None, "code": None}
        response, error = {"status_code": 400, "body": {"error": problem}}, {"code": "400", "message": row["error"]}
    else:
        tokens = {"prompt_tokens": row["prompt_tokens"], "completion_tokens": row["answer_tokens"]}
        body = {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": record["body"].get("model") or "",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": row["answer"]},
                    "finish_reason": row["finish_reason"],
                }
            ],
            "usage": {**tokens, "total_tokens": sum(tokens.values())},
        }
        response, error = {"status_code": 200, "body": body}, None
    return {
        "id": f"batch_req_{number}",
        "custom_id": record["custom_id"],
        "response": {"request_id": f"req_{number}", **response},
        "error": error,
    }


def _to_parquet(lines: Path, target: Path) -> None:
    """Write JSON lines as Parquet, with the types that fit all rows."""
    import pyarrow as pa
    import pyarrow.json as pa_json
    import pyarrow.parquet as pq

    with open(lines, "rb") as file:
        longest = max(map(len, file))
    try:
        table = pa_json.read_json(lines, pa_json.ReadOptions(block_size=max(1 << 20, 2 * longest)))
    except pa.ArrowInvalid as error:
        what = (
            f"the rows have values of different types, for which Parquet has no column ({str(error).splitlines()[0]})"
        )
        raise DataError(what, fix="end the file of -o in .jsonl") from None
    with disk_full_as_store_error(f"no space left for {target}"), new_file(target) as written:
        pq.write_table(table, written)
