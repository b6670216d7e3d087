"""Tokenizer of a model's folder, as the tokenizers library has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError


def load_backend(folder: Path) -> Any:
    """Read tokenizer.json, which takes milliseconds, or other files by AutoTokenizer. Raises DataError."""
    return _fast(folder) if (folder / "tokenizer.json").is_file() else _auto(folder)


def _fast(folder: Path) -> Any:
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # noqa: BLE001 - the Rust library raises bare Exception
        raise _unreadable(folder, error) from None


def _auto(folder: Path) -> Any:
    import transformers

    try:
        loaded = transformers.AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
        return loaded.backend_tokenizer
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise _unreadable(folder, error) from None


def _unreadable(folder: Path, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(f"the tokenizer in {folder} cannot be loaded ({reason})", fix="give another folder")
