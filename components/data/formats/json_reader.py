"""JSON reader: one object per line, or a document that is one array of objects, decoded piece by piece."""

from __future__ import annotations

import codecs
import json
import shlex
from collections import Counter
from collections.abc import Collection, Iterator
from typing import IO, Any

import pyarrow as pa

from raypath.components.core.errors import DataError
from raypath.components.data.columns.nested import has_key, key_names
from raypath.components.data.columns.schema import Columns, from_objects
from raypath.components.data.formats.limits import BATCH_BYTES, too_long
from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.sources.streams import open_bytes
from raypath.components.data.streaming.parquet import GROUP_ROWS

_CHUNK = 1 << 18
_KEYS = 1_000
"""Distinct keys that are collected for a message."""
_SEARCHED = 32
"""Keys up to which a line is searched for each of them; lines of more are parsed a second time."""
Objects = Iterator[tuple[str, dict[str, Any]]]


def json_columns(file: DataFile, wanted: Collection[str]) -> list[str]:
    """Return the keys of the objects in their first order, those of nested objects as `message.body`.

    Reads on until all that are wanted were found.
    """
    found: dict[str, None] = {}
    n, asked = -1, set(wanted)
    parsed: dict[str, Any] = {}
    for n, (_, parsed) in enumerate(json_objects(file)):
        if len(found) < _KEYS:
            found.update(dict.fromkeys(key_names(parsed)))
        found.update((name, None) for name in wanted if has_key(parsed, name))
        missing = [name for name in wanted if name not in found]
        if n == 0 and missing:
            missing = wanted = _mentioned(file, missing)
        if not missing:
            break
    if n < 0:
        raise DataError(f"{file.name} has no rows", fix="remove it, or write it again")
    if n == 0 and asked and not found.keys() & asked:
        _check_inside(file, parsed)
    return list(found)


def _check_inside(file: DataFile, parsed: dict[str, Any]) -> None:
    """Raise DataError if the only object of a file has the rows in a list."""
    for key, value in parsed.items():
        if file.path.suffix == ".json" and isinstance(value, list) and value and isinstance(value[0], dict):
            fix = f"jq {shlex.quote(f'.[{json.dumps(key)}]')} {shlex.quote(file.name)} > rows.json"
            raise DataError(
                f"{file.name} is one object with the rows in its key {key}; wanted an array of objects", fix=fix
            )


def _mentioned(file: DataFile, names: list[str]) -> list[str]:
    """Return the names that may be keys in the file; much faster than parsing it."""
    # JSON has several ways to write other characters, and a dotted name may be one of a nested object.
    plain = (name for name in names if name.isascii() and name.isprintable() and "." not in name)
    keys = {name: json.dumps(name).encode() for name in plain}
    found = {name for name in names if name not in keys}
    rest = b""
    with open_bytes(file) as raw:
        while len(found) < len(names) and (chunk := raw.read(1 << 20)):
            data = rest + chunk
            found.update(name for name, key in keys.items() if key in data)
            rest = data[-max(map(len, keys.values())) :]
    return [name for name in names if name in found]


def json_rows(file: DataFile, columns: Columns) -> Iterator[tuple[int, pa.Table]]:
    """Yield (row, table), rows counted from 1. Raises DataError for an object that has a selected key twice."""
    first, size = 1, 0
    batch: list[dict[str, Any]] = []
    keys = {name: json.dumps(name, ensure_ascii=False) for name in columns.selected().values()}
    for text, parsed in json_objects(file):
        repeated = list(keys) if len(keys) > _SEARCHED else [name for name, key in keys.items() if text.count(key) > 1]
        if repeated:
            _check_once(file, text, repeated, first + len(batch))
        batch.append(parsed)
        size += len(text)
        if len(batch) == GROUP_ROWS or size > BATCH_BYTES:
            yield first, from_objects(file, columns, batch, first)
            first, size, batch = first + len(batch), 0, []
    if batch:
        yield first, from_objects(file, columns, batch, first)


def _check_once(file: DataFile, text: str, names: Collection[str], row: int) -> None:
    pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)
    counts = Counter(key for key, _ in pairs)
    if name := next((name for name in names if counts[name] > 1), ""):
        raise DataError(f"{file.name} row {row} has the key {name} twice", fix="remove one of them")


def json_objects(file: DataFile) -> Objects:
    """Yield (text, object) of each object of a file."""
    with open_bytes(file) as raw:
        if raw.peek(_CHUNK).lstrip().startswith(b"["):  # type: ignore[attr-defined]
            yield from _elements(file, raw)
            return
        read = 0
        for number, line in enumerate(iter(lambda: raw.readline(BATCH_BYTES + 1), b""), start=1):
            if len(line) > BATCH_BYTES:
                raise too_long(file, number)
            text = line.decode().strip()
            if not text:
                continue
            parsed, unfinished = _parse(text)
            if unfinished and not read:
                break
            if not isinstance(parsed, dict):
                raise DataError(f"{file.name} line {number} is not a JSON object", fix="write one object per line")
            read += 1
            yield text, parsed
        else:
            return
    # An object over several lines.
    with open_bytes(file) as raw:
        yield from _elements(file, raw)


def _parse(text: str) -> tuple[Any, bool]:
    """Return the value of a line, None if it is not JSON, and True if it may go on in the next line."""
    try:
        return json.loads(text), False
    except json.JSONDecodeError as error:
        return None, text.startswith("{") and error.pos >= len(text)
    except (ValueError, RecursionError):
        return None, False


def _elements(file: DataFile, raw: IO[bytes]) -> Objects:
    """Yield (text, object) of the elements of an array, or of objects one after another."""
    decoder, number = json.JSONDecoder(), 0
    in_array = ended = False
    buffer = _Buffer(raw)
    while (letter := buffer.next_letter()) != "":
        if letter == "[" and number == 0 and not in_array:
            in_array = True
            buffer.position += 1
        elif letter == "]" and in_array and not ended:
            ended = True
            buffer.position += 1
        elif letter == "," and in_array and not ended and number:
            buffer.position += 1
        elif letter == "{" and not ended:
            number += 1
            yield buffer.decode(decoder, file, number)
        else:
            raise _no_object(file, number + 1)
    if in_array and not ended:
        raise DataError(f"{file.name} ends within its array", fix="copy or write the file again")


def _no_object(file: DataFile, number: int) -> DataError:
    return DataError(f"{file.name}: element {number} is not a JSON object", fix="write one array of objects")


class _Buffer:
    """Text of a JSON document from the present position on: as much as one element needs."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._decoder = raw, codecs.getincrementaldecoder("utf-8")()
        self._text, self._ended = "", False
        self.position = 0

    def _more(self, size: int) -> None:
        chunk = self._raw.read(size)
        self._ended = not chunk
        self._text = self._text[self.position :] + self._decoder.decode(chunk, final=self._ended)
        self.position = 0

    def next_letter(self) -> str:
        """Return the next character that is not white space; "" at the end."""
        while True:
            while self.position < len(self._text):
                letter = self._text[self.position]
                if letter not in " \t\r\n":
                    return letter
                self.position += 1
            if self._ended:
                return ""
            self._more(_CHUNK)

    def decode(self, decoder: json.JSONDecoder, file: DataFile, number: int) -> tuple[str, dict[str, Any]]:
        """Decode the object at the position, and move behind it."""
        while True:
            start = self.position
            try:
                parsed, self.position = decoder.raw_decode(self._text, start)
                return self._text[start : self.position], parsed
            except (ValueError, RecursionError):
                if self._ended:
                    raise _no_object(file, number) from None
            if len(self._text) - start > BATCH_BYTES:
                raise too_long(file, number)
            self._more(max(_CHUNK, len(self._text) - start))
