"""Token ids of rendered conversations, piece by piece: a piece ends where an assistant message starts or ends.

A model generates after the ids of a prompt, so training has to divide the text there as well: tokens that span the
border never occur at inference. Names of control tokens, such as `<|im_end|>`, that a message has in its text
are marked before a template is rendered, and encoded as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from raypath.components.models.conversion.unigram import NEVER

_BEGIN, _END = "\ufdd2", "\ufdd3"
"""Marks around the name of a control token in a message."""
MARKS = _BEGIN + _END
TAIL = 256
"""Characters before a piece that may contain the last control token."""
_RESERVED = re.compile("[\ufdd0-\ufdd4]")
"""Code points that mark text in this package; Unicode reserves them for the inside of a program."""
_TYPED = re.compile(f"{_BEGIN}([^{MARKS}]*){_END}|[{MARKS}]")


class Encoded(NamedTuple):
    """Token ids of a conversation, and the loss mask."""

    ids: list[int]
    mask: list[bool]

    @property
    def length(self) -> int:
        """Number of tokens that the model gets at once."""
        return len(self.ids)


class Piece(NamedTuple):
    """Part of a rendered text. before: the text before it."""

    text: str
    before: str
    learned: bool = False


class PieceEncoder:
    """Encode pieces with a tokenizer of the tokenizers library.

    control: names of the tokens that only a template may write; special ones, and those that its source names. batched:
    use the threads of the tokenizers library.
    """

    def __init__(self, backend: Any, control: Sequence[str], batched: bool = True) -> None:
        self.backend, self._batched = backend, batched
        backend.no_padding()
        backend.no_truncation()
        self._control = sorted((name for name in control if name), key=len, reverse=True)
        names = "|".join(map(re.escape, self._control)) or "(?!)"
        self._names = re.compile(names)
        self.control = re.compile(f"(?<!{_BEGIN})(?:{names})")
        """Finds control tokens that the template has written."""
        self._last = re.compile(f"(?<!{_BEGIN})({names})\\s*$")

    def mark(self, value: Any) -> Any:
        """Mark the names of control tokens in the texts of a JSON value."""
        if isinstance(value, str):
            clean = _RESERVED.sub("", value)
            return self._names.sub(lambda match: f"{_BEGIN}{match[0]}{_END}", clean)
        if isinstance(value, dict):
            return {key: self.mark(each) for key, each in value.items()}
        return [self.mark(each) for each in value] if isinstance(value, list | tuple) else value

    @staticmethod
    def unmark(text: str) -> str:
        """Return a text without marks."""
        return re.sub(f"[{MARKS}]", "", text)

    def id_of(self, token: str) -> int | None:
        """Return the id of a token; None if there is none."""
        found = self.backend.token_to_id(token)
        return None if found is None else int(found)

    @property
    def vocabulary(self) -> int:
        """Number of tokens, added ones included."""
        return int(self.backend.get_vocab_size())

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Return the text of token ids. special: with the names of special tokens."""
        return str(self.backend.decode(list(ids), skip_special_tokens=not special))

    def encode(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """Return the token ids of each piece as they are in the middle of its text; equal pieces are encoded once."""
        known = {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}
        ids = self._encoded(list(known))
        return [ids[known[piece]] for piece in pieces]

    def _encoded(self, pieces: Sequence[Piece]) -> list[list[int]]:
        contexts = [self._context(piece.before) for piece in pieces]
        plain = [n for n, piece in enumerate(pieces) if _BEGIN not in piece.text and _END not in piece.text]
        made = self._batch([contexts[n] + pieces[n].text for n in plain])
        ids: list[list[int]] = [[] for _ in pieces]
        for n, found in zip(plain, made, strict=True):
            ids[n] = self._behind(contexts[n], found, pieces[n].text)
        for n in set(range(len(pieces))) - set(plain):
            ids[n] = self._with_typed(pieces[n], contexts[n])
        return ids

    def _batch(self, texts: list[str]) -> list[list[int]]:
        if not self._batched:
            return [self._ids(text) for text in texts]
        return [found.ids for found in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _with_typed(self, piece: Piece, context: str) -> list[int]:
        """Encode a piece that has marks: marked names as text, lone marks as nothing."""
        ids: list[int] = []
        for n, part in enumerate(_TYPED.split(piece.text)):
            if part:
                ids += self._typed(part) if n % 2 else self._behind(context, self._ids(context + part), part)
                context = "" if self._is_plain else "\n"
        return ids

    def _typed(self, name: str) -> list[int]:
        """Encode the name of a control token as text."""
        ids = [int(each) for each in self._bare.encode(name, add_special_tokens=False).ids]
        if self.id_of(name) in ids:
            return [int(n) for one in name for n in self._bare.encode(one, add_special_tokens=False).ids]
        return ids

    def _behind(self, context: str, ids: Sequence[int], text: str) -> list[int]:
        """Drop the ids of the context, with which a text was encoded."""
        if not context:
            return list(ids)
        before = self._ids(context)
        return list(ids[len(before) :]) if list(ids[: len(before)]) == before else self._ids(text)

    def _context(self, before: str) -> str:
        """Return what stands for the text before a piece: tokenizers such as Llama 2's begin each text with a space."""
        if self._is_plain or not before:
            return ""
        found = self._last.search(before)
        is_last = found is not None and len(self._ids(found[0])) == 1
        return found[1] if found is not None and is_last else "\n"

    @cached_property
    def begin(self) -> str:
        """Special tokens that the tokenizer puts before a text."""
        word, made = self._ids("a"), self.backend.encode("a")
        start = next((n for n in range(len(made.ids)) if made.ids[n : n + len(word)] == word), 0)
        return "".join(made.tokens[:start])

    @cached_property
    def _is_plain(self) -> bool:
        """True if a text has the same tokens at the beginning and behind others."""
        word = self._ids("a")
        behind = self._ids("\na") == self._ids("\n") + word
        return behind and all(self._ids(name + "a")[1:] == word for name in self._control[:1])

    def _ids(self, text: str) -> list[int]:
        return [int(each) for each in self.backend.encode(text, add_special_tokens=False).ids]

    @cached_property
    def _bare(self) -> Any:
        """Tokenizer without added tokens."""
        import tokenizers

        state = json.loads(self.backend.to_str())
        state |= {"added_tokens": [], "post_processor": None}
        if state["model"].get("type") == "Unigram":
            known = set(self._control)
            vocabulary = state["model"]["vocab"]
            state["model"]["vocab"] = [[piece, NEVER if piece in known else score] for piece, score in vocabulary]
        return tokenizers.Tokenizer.from_str(json.dumps(state))


def joined(pieces: Sequence[tuple[Piece, list[int]]], learn: str) -> Encoded:
    """Return the ids of all pieces, and their loss mask."""
    mask = [piece.learned or learn == "all" for piece, ids in pieces for _ in ids]
    return Encoded([number for _, ids in pieces for number in ids], mask)


def divided(text: str, spans: Sequence[tuple[int, int, bool]], before: str = "") -> list[Piece]:
    """Divide a text by (start, end, learned) of what the assistant wrote. before: the text before it."""
    found: list[Piece] = []
    position = 0
    for start, end, learned in (*spans, (len(text), len(text), False)):
        for begin, stop, is_learned in ((position, start, False), (start, end, learned)):
            if stop > begin:
                found.append(Piece(text[begin:stop], (before + text[:begin])[-TAIL:], is_learned))
        position = end
    return found
