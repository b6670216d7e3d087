"""Sources and targets of an encoder-decoder as token ids: what a chat template is for a decoder.

A row is a conversation of one user message, the source, and one answer, the target. Its ids are those of the source
followed by those of the target, which the loss mask marks; the model gets them apart (decoder/encoder_decoder.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from raypath.components.core.conversations import Conversation, Message, Preference, Tool
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.models.chat_template.pieces import Encoded
from raypath.components.models.chat_template.template import ChatTemplate, Learn
from raypath.components.models.language_models import is_encoder_decoder

BATCH = 1_024
"""Texts that are tokenized together."""


class EncodedPair(Encoded):
    """Token ids of a source followed by those of its target, which the mask marks."""

    @property
    def length(self) -> int:
        """Tokens of the longer side: the model gets both apart."""
        targets = sum(self.mask)
        return max(len(self.ids) - targets, targets)


class SourceTarget:
    """Tokenizer of an encoder-decoder for both sides. It can be pickled for workers that see the folder."""

    name, added = "tokenizer", ""
    end_ids: tuple[int, ...] = ()
    """Ids that end a target besides the model's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokenizer = _open(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load the tokenizer of a model's folder. Raises DataError for one that does not open here."""
        return cls(Path(folder))

    def save(self, folder: str | Path) -> None:
        """Write nothing: all is among the files of the tokenizer."""

    def encode(self, conversation: Conversation, learn: Learn = "assistant", context: int = 0) -> Encoded:
        """Return the token ids of a source and its target, and the mask of the target. Raises DataError."""
        return self.encode_all([conversation], learn, [context])[0]

    def encode_all(
        self, conversations: Sequence[Conversation], learn: Learn = "assistant", contexts: Sequence[int] | None = None
    ) -> list[Encoded]:
        """Encode many rows. Raises DataError for a conversation that is not one source and one target."""
        if learn != "assistant":
            raise ParamsError(
                "preprocess.learn=all is for decoders", fix="leave it out: the loss is that of the target"
            )
        sources = self._ids([_source(each.prompt.messages, each.tools) for each in conversations])
        targets = self._ids([_target(each) for each in conversations], is_target=True)
        return [
            EncodedPair([*source, *target], [False] * len(source) + [True] * len(target))
            for source, target in zip(sources, targets, strict=True)
        ]

    def encode_pairs(
        self, preferences: Sequence[Preference], learn: Learn = "assistant"
    ) -> list[tuple[Encoded, Encoded]]:
        """Raise DataError: preferences are for decoders."""
        raise DataError("preferences are for decoders", fix="give a decoder, such as a Llama or a Qwen")

    def encode_prompt(self, messages: Sequence[Message], tools: Sequence[Tool] | None = None) -> list[int]:
        """Return the token ids of a source. Raises DataError for messages that are not one text of the user."""
        return self._ids([_source(messages, tools)])[0]

    def _ids(self, texts: list[str], is_target: bool = False) -> list[list[int]]:
        # Names of special tokens in a text are text.
        found: list[list[int]] = []
        for start in range(0, len(texts), BATCH):
            given: dict[str, Any] = {"text_target" if is_target else "text": texts[start : start + BATCH]}
            found += self._tokenizer(**given, truncation=False, verbose=False, split_special_tokens=True)["input_ids"]
        return found

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickle, (self._folder,)


@lru_cache(maxsize=2)
def _unpickle(folder: Path) -> SourceTarget:
    return SourceTarget(folder)


def load_template(folder: str | Path) -> ChatTemplate | SourceTarget:
    """Load what turns conversations into token ids for the model of a folder. Raises DataError."""
    return SourceTarget.load(folder) if is_encoder_decoder(Path(folder)) else ChatTemplate.load(folder)


def _open(folder: Path) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ImportError, OSError, ValueError) as error:
        reason = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        if "sentencepiece" in str(error).lower():
            what = f"the tokenizer of {folder} needs the Python package sentencepiece"
            raise DataError(what, fix="pip install sentencepiece, or give a folder with a tokenizer.json") from None
        raise DataError(f"the tokenizer of {folder} does not open ({reason})", fix="give another folder") from None


def _source(messages: Sequence[Message], tools: Sequence[Tool] | None) -> str:
    if len(messages) == 1 and messages[0]["role"] == "user" and not tools:
        return messages[0]["content"]
    roles = ", ".join(message["role"] for message in messages) or "no message"
    what = f"an encoder-decoder takes one text of the user; a row has {roles}{' and tools' if tools else ''}"
    raise DataError(what, fix="give a source and a target column, or use the workflow chat with a decoder")


def _target(conversation: Conversation) -> str:
    return conversation.answer["content"]
