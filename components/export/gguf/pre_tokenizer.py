r"""Names that llama.cpp has for the ways in which a byte-level tokenizer splits a text before its merges.

llama.cpp contains the regular expressions, and a file has only their name. The name is found by the settings in
tokenizer.json, which stay the same when tokens are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from raypath.components.core.errors import DataError

_END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CAPITALS, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ODD, _END_SLASH = r"[^\r\n\p{L}\p{N}]?", _END.replace(r"[\r\n]*", r"[\r\n/]*")
SPLITS = {
    _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _END: "llama-bpe",
    _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _END: "qwen2",
    f"{_ODD}{_CAPITALS}*{_SMALL}+|{_ODD}{_CAPITALS}+{_SMALL}*" + r"|\p{N}" + _END_SLASH: "tekken",
    f"{_ODD}{_CAPITALS}*{_SMALL}+{_CONTRACTION}?|{_ODD}{_CAPITALS}+{_SMALL}*{_CONTRACTION}?"
    + r"|\p{N}{1,3}"
    + _END_SLASH: "gpt-4o",
}
"""Name by regular expression, where a `Split` with it is all that the tokenizer does."""
NORMALIZERS = (None, "NFC")
"""Normalizers that llama.cpp's byte-level tokenizers come near: text is nearly always in NFC already."""


def pre_tokenizer_name(tokenizer: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for a tokenizer.json. Raises DataError for a tokenizer that it has no name for."""
    normalizer = tokenizer.get("normalizer")
    steps = list(_steps(tokenizer.get("pre_tokenizer")))
    name = _named(steps) if (normalizer or {}).get("type") in NORMALIZERS else ""
    if not name:
        kinds = ", ".join(step["type"] for step in steps) or "nothing"
        what = f"llama.cpp has no name for how this tokenizer splits texts ({kinds})"
        fix = "wanted the tokenizer of GPT-2, SmolLM2, Llama 3, Qwen 2 or 3, Mistral Nemo or GPT-4o; use --to hf"
        raise DataError(what, fix=fix)
    return name


def _named(steps: list[Mapping[str, Any]]) -> str:
    match steps:
        case [{"type": "ByteLevel"}]:
            return "gpt-2"
        case [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}]:
            return "smollm"
        case [{"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}]:
            return SPLITS.get(regex, "")
    return ""


def _steps(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a pre-tokenizer, without a ByteLevel that only maps bytes to characters."""
    if step is None:
        return
    if step["type"] == "Sequence":
        for inner in step["pretokenizers"]:
            yield from _steps(inner)
    elif step["type"] != "ByteLevel" or step.get("use_regex", True) or step.get("add_prefix_space"):
        yield step if not step.get("add_prefix_space") else {"type": "ByteLevel with a space before the text"}
