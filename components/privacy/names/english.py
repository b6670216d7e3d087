"""English names and addresses by Rampart, a token classifier of 6 layers in 4 bits (CC-BY-4.0)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from raypath.components.privacy.kinds import Kind
from raypath.components.privacy.names.files import ENGLISH, model_file, session
from raypath.components.privacy.recogniser import Span

WINDOW, OVERLAP = 480, 64
"""Characters that the model reads at a time; longer ones lower its recall. Windows overlap."""
BATCH = 32
_NAMES = ("GIVEN_NAME", "SURNAME")
_ADDRESS = ("BUILDING_NUMBER", "STREET_NAME", "SECONDARY_ADDRESS", "CITY", "STATE", "ZIP_CODE")
_IS_ADDRESS = re.compile(r"(?=.*\d).*[A-Z][a-z]{2}", re.DOTALL)
"""An address has a number and a word; a city or a number alone is none."""
_NO_NAME = re.compile(r"\d|\b(?:BIC|IBAN|ISBN|SWIFT|SSN|DOB)\b")
_GAP = re.compile(r"[\s,.\-']{0,3}|\s[A-Z]\.?\s")
"""What may be between the parts of a name: signs, or an initial."""
_HAS_LETTERS = re.compile(r"[A-Za-z]{2}")


class EnglishNames:
    """The model and its tokenizer."""

    def __init__(self, threshold: float = 0.5) -> None:
        from tokenizers import Tokenizer

        self.threshold = threshold
        self._session: Any = session(f"{ENGLISH}/onnx/model_q4.onnx")
        self._tokenizer = Tokenizer.from_file(str(model_file(f"{ENGLISH}/tokenizer.json")))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(512)
        labels = json.loads(model_file(f"{ENGLISH}/config.json").read_text(encoding="utf-8"))["id2label"]
        self._labels = [labels[str(n)].partition("-")[2] for n in range(len(labels))]

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """Return the names and addresses of each text; one without Latin letters is not read."""
        windows = [(n, start) for n, text in enumerate(texts) if _HAS_LETTERS.search(text) for start in _starts(text)]
        windows.sort(key=lambda each: min(len(texts[each[0]]) - each[1], WINDOW))
        parts: list[list[tuple[int, int, str]]] = [[] for _ in texts]
        for first in range(0, len(windows), BATCH):
            chunk = windows[first : first + BATCH]
            found = self._parts([texts[n][start : start + WINDOW] for n, start in chunk])
            for (n, start), each in zip(chunk, found, strict=True):
                parts[n] += [(start + a, start + b, label) for a, b, label in each]
        return [list(_spans(text, sorted(set(each)))) for text, each in zip(texts, parts, strict=True)]

    def _parts(self, texts: list[str]) -> list[list[tuple[int, int, str]]]:
        """Return start, end and label of the classified words of each text."""
        rows = self._tokenizer.encode_batch(texts)
        width = max(len(row.ids) for row in rows)
        ids = np.zeros((len(rows), width), np.int64)  # [b, width]
        mask = np.zeros_like(ids)
        for n, row in enumerate(rows):
            ids[n, : len(row.ids)], mask[n, : len(row.ids)] = row.ids, 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        logits = self._session.run(None, given)[0]  # float32 [b, width, 35]
        wide = np.exp(logits - logits.max(-1, keepdims=True))
        scores = wide / wide.sum(-1, keepdims=True)
        best, sure = scores.argmax(-1), scores.max(-1) >= self.threshold
        found = []
        for n, row in enumerate(rows):
            found.append(
                [
                    (*row.offsets[t], self._labels[best[n, t]])
                    for t in range(len(row.ids))
                    if best[n, t] and sure[n, t] and row.offsets[t][1] > row.offsets[t][0]
                ]
            )
        return found


def _starts(text: str) -> Iterator[int]:
    start = 0
    while True:
        yield start
        if start + WINDOW >= len(text):
            return
        start += WINDOW - OVERLAP


def _spans(text: str, parts: list[tuple[int, int, str]]) -> Iterator[Span]:
    """Join the parts of a name and of an address that are beside each other, and complete their words."""
    for kind, labels in ((Kind.NAME, _NAMES), (Kind.ADDRESS, _ADDRESS)):
        joined: list[tuple[int, int, set[str]]] = []
        for start, end, label in parts:
            if label not in labels:
                continue
            if (
                joined
                and start <= joined[-1][1] + 4
                and _GAP.fullmatch(text[joined[-1][1] : max(start, joined[-1][1])])
            ):
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]), joined[-1][2] | {label})
            else:
                joined.append((start, end, {label}))
        for start, end, found in joined:
            start, end = _words(text, start, end)
            if kind is Kind.ADDRESS and not ("STREET_NAME" in found and _IS_ADDRESS.match(text[start:end])):
                continue
            # @anna and anna7 are names of accounts.
            if kind is Kind.NAME and (_NO_NAME.search(text[start:end]) or text[start - 1 : start] == "@"):
                continue
            yield Span(start, end, kind)


def _words(text: str, start: int, end: int) -> tuple[int, int]:
    """Extend a range to whole words."""
    while start and text[start - 1].isalnum() and text[start - 1].isascii():
        start -= 1
    while end < len(text) and text[end].isalnum() and text[end].isascii():
        end += 1
    return start, end
