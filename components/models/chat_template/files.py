"""Files of a tokenizer's folder that define a chat: the template, special tokens and the tokenizer itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.models.chat_template.defaults import DEFAULTS
from raypath.components.models.conversion.tokenizer_backend import load_backend

FILE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"
_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class ChatFiles:
    """Content of the files. name: "tokenizer" for the base's own template, else that of a default.

    tool_source: template for conversations with tools, "" for the same. tokens: special tokens by their names.
    tokenizer: as in tokenizer.json. added: generation prompt that was added to the base's own template.
    """

    name: str
    source: str
    tool_source: str
    tokens: tuple[tuple[str, str], ...]
    tokenizer: str
    added: str = ""


def read_chat_files(folder: Path) -> ChatFiles:
    """Read a folder; one without a template gets a default. Raises DataError for a tokenizer without an end token."""
    backend = load_backend(folder)
    tokens = _special_tokens(folder, backend)
    named = _templates(folder)
    source = named.get("default") or next(iter(named.values()), "")
    name = "tokenizer"
    if not source:
        name = default_name(backend, tokens, folder)
        source = DEFAULTS[name]
    return ChatFiles(name, source, named.get("tool_use", ""), tuple(tokens.items()), backend.to_str())


def default_name(backend: Any, tokens: Mapping[str, str], folder: Path) -> str:
    """Choose the default for a vocabulary."""
    if all(backend.token_to_id(token) is not None for token in ("<|im_start|>", "<|im_end|>")):
        return "chatml"
    if not tokens.get("eos_token"):
        what = f"the tokenizer in {folder} has neither a chat template nor a token that ends a text"
        raise DataError(what, fix="give a causal language model, or set eos_token in its tokenizer_config.json")
    return "turns"


def _templates(folder: Path) -> dict[str, str]:
    """Return the templates of a folder by name; the file comes before the setting, as in transformers."""
    found: dict[str, str] = {}
    setting = _read(folder / _CONFIG).get("chat_template") or _read(folder / "chat_template.json").get("chat_template")
    if isinstance(setting, str):
        found["default"] = setting
    elif isinstance(setting, list):
        found = {each["name"]: each["template"] for each in setting if {"name", "template"} <= each.keys()}
    if (folder / FILE).is_file():
        found["default"] = (folder / FILE).read_text(encoding="utf-8")
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        found[path.stem] = path.read_text(encoding="utf-8")
    return found


def _special_tokens(folder: Path, backend: Any) -> dict[str, str]:
    """Return the special tokens by name; those that only config.json numbers are named by the vocabulary."""
    settings = {**_read(folder / "special_tokens_map.json"), **_read(folder / _CONFIG)}
    found = {name: _content(settings.get(name)) for name in _TOKENS}
    config = {**_read(folder / "config.json"), **_read(folder / "generation_config.json")}
    for name in ("bos_token", "eos_token"):
        number = config.get(f"{name}_id")
        number = number[0] if isinstance(number, list) and number else number
        if not found[name] and isinstance(number, int):
            found[name] = backend.id_to_token(number) or ""
    return {name: token for name, token in found.items() if token}


def _content(token: Any) -> str:
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
