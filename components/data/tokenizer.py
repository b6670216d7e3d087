"""Texts to token ids: the tokenizer of a base model, truncating, never padding. Training and serving share it."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.core.uris import local_path, scheme
from raypath.components.models.base_models import base_folder

_FILES = ("tokenizer.json", "vocab.txt", "tokenizer.model")
# Their first position is the one after the padding token, so two of the positions are never used.
_OFFSET_MODELS = {"roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "xmod", "data2vec-text"}


class TextTokenizer:
    """Turns texts into token ids, special tokens included, at most `max_length` of them.

    folder: has tokenizer.json (read by the Rust library alone, which starts in milliseconds) or what AutoTokenizer
    opens. It travels to workers with the tokenizer in it, so they need no folder.
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        _check_length(folder, max_length)
        self.max_length = max_length
        self._threads = True
        self._inner = _fast(folder) if (folder / "tokenizer.json").is_file() else _auto(folder)
        self._inner.no_padding()
        self._inner.enable_truncation(max_length, direction=_settings(folder).get("truncation_side", "right"))

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, 1 to max_length of them."""
        return [found.ids for found in self._encoded(texts)]

    def encode_with_truncation(self, texts: list[str]) -> tuple[list[list[int]], list[bool]]:
        """The token ids, and of each text whether it was longer and is cut."""
        found = self._encoded(texts)
        ids = [each.ids for each in found]
        full = (len(row) == self.max_length for row in ids)
        # What is left over is looked at where there may be some: the library copies it.
        return ids, [at_most and bool(each.overflowing) for each, at_most in zip(found, full, strict=True)]

    def _encoded(self, texts: list[str]) -> list[Any]:
        if self._threads:
            return list(self._inner.encode_batch_fast(texts))
        return [self._inner.encode(text) for text in texts]

    def __reduce__(self) -> tuple[object, ...]:
        return _revive, (self._inner.to_str(), self.max_length)


@lru_cache(maxsize=2)
def _revive(text: str, max_length: int) -> TextTokenizer:
    """In a worker: there is one worker a core, so each stays on one thread."""
    import tokenizers

    encoder = TextTokenizer.__new__(TextTokenizer)
    encoder.max_length, encoder._threads = max_length, False
    encoder._inner = tokenizers.Tokenizer.from_str(text)
    return encoder


def tokenizer_folder(source: str) -> Path:
    """The folder of a tokenizer or of a base model. Raises DataError."""
    if scheme(source) == "hf://":
        return base_folder(source)
    folder = local_path(source)
    if not any((folder / name).is_file() for name in _FILES):
        what = f"base model or tokenizer {source} is no folder with {', '.join(_FILES[:-1])} or {_FILES[-1]}"
        raise DataError(what, fix="set -s finetune.base=PATH or hf://NAME")
    return folder


def model_max_length(folder: Path) -> int | None:
    """Tokens that the model of a folder takes, by config.json and tokenizer_config.json; None when neither says."""
    config = _read_json(folder / "config.json")
    limits = [_settings(folder).get("model_max_length"), config.get("max_position_embeddings")]
    if limits[1] and config.get("model_type") in _OFFSET_MODELS:
        limits[1] -= 2
    # Tokenizers without a limit write 1e30.
    known = [int(limit) for limit in limits if limit and 0 < limit < 1e9]
    return min(known) if known else None


def _check_length(folder: Path, max_length: int) -> None:
    most = model_max_length(folder)
    if most is not None and max_length > most:
        what = f"max_length {max_length} is more than the {most} tokens that the model in {folder} takes"
        raise DataError(what, fix=f"set -s preprocess.max_length={most} or less")


def _fast(folder: Path) -> Any:
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # noqa: BLE001 - the Rust library raises bare Exception
        raise _broken(folder, error) from None


def _auto(folder: Path) -> Any:
    import transformers

    try:
        made = transformers.AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
        return made.backend_tokenizer
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise _broken(folder, error) from None


def _broken(folder: Path, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(f"the tokenizer in {folder} does not open ({reason})", fix="give another folder")


def _settings(folder: Path) -> dict[str, Any]:
    return _read_json(folder / "tokenizer_config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
