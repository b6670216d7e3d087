"""Tokenizer of a GGUF file: tokens, their types, merges or scores, special tokens and the chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.export.gguf.pre_tokenizer import pre_tokenizer_name

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types, as llama.cpp numbers them."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "\u2581"
"""Character that stands for a space in the tokens of SentencePiece."""


def write_vocabulary(writer: Any, tokenizer: Any, size: int, ends: Sequence[int]) -> None:
    """Write the tokenizer.

    Args:
        writer: A GGUFWriter.
        tokenizer: A fast one of transformers.
        size: Rows of the embedding.
        ends: Ids of the tokens that end an answer in a chat.

    Raises DataError for a kind of tokenizer that llama.cpp has no decoder's form of, or with more tokens than rows.
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model["type"] != "BPE":
        kind = model["type"]
        raise DataError(f"a tokenizer of kind {kind} has no GGUF form for a decoder", fix="wanted BPE; use --to hf")
    if len(tokenizer) > size:
        what = f"the tokenizer has {len(tokenizer)} tokens, the model's embedding {size} rows"
        raise DataError(what, fix="give a folder whose tokenizer and weights belong together")
    spelled = tokens_of(described, size)
    if _is_byte_level(described):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer_name(described))
        writer.add_token_list(spelled)
        writer.add_token_types(types_of(described, spelled))
        writer.add_token_merges([" ".join(pair) for pair in merges_of(model)])
    else:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(spelled)
        writer.add_token_scores(scores_of(model, spelled))
        writer.add_token_types(types_of(described, spelled))
        writer.add_add_space_prefix(_adds_space(described))
    _write_special(writer, tokenizer, ends)


def tokens_of(described: Mapping[str, Any], size: int) -> list[str]:
    """Return the tokens by id; rows of the embedding without a token are called [PAD<id>]."""
    found = {int(n): token for token, n in described["model"]["vocab"].items()}
    found |= {int(added["id"]): added["content"] for added in described["added_tokens"]}
    return [found.get(n, f"[PAD{n}]") for n in range(size)]


def types_of(described: Mapping[str, Any], spelled: Sequence[str]) -> list[int]:
    """Return the type of each token: special ones are control tokens, which llama.cpp matches in a chat's text."""
    model = described["model"]
    added = {int(each["id"]): CONTROL if each["special"] else USER_DEFINED for each in described["added_tokens"]}
    known = {int(n) for n in model["vocab"].values()}
    bytes_too = bool(model.get("byte_fallback"))
    unknown = None if _is_byte_level(described) else model.get("unk_token")
    found = []
    for n, token in enumerate(spelled):
        if bytes_too and _BYTE.fullmatch(token):
            found.append(BYTE)
        elif token == unknown:
            found.append(UNKNOWN)
        else:
            found.append(added.get(n, NORMAL if n in known else UNUSED))
    return found


def merges_of(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the merges in their order; older files have each as one string."""
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def scores_of(model: Mapping[str, Any], spelled: Sequence[str]) -> list[float]:
    """Return a score for each token: SentencePiece merges the pair whose token has the highest, here the first merge's.

    Tokens that no merge makes have the lowest score, which is never compared.
    """
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges_of(model)):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, len(ranks))) for token in spelled]


def _is_byte_level(described: Mapping[str, Any]) -> bool:
    return any('"ByteLevel"' in json.dumps(described.get(part)) for part in ("pre_tokenizer", "decoder"))


def _adds_space(described: Mapping[str, Any]) -> bool:
    """Return True if a space is put before a text: by the normalizer, or by the pre-tokenizer Metaspace."""
    text = json.dumps([described.get("normalizer"), described.get("pre_tokenizer")], ensure_ascii=False)
    return '"Prepend"' in text or '"prepend_scheme": "always"' in text or '"prepend_scheme": "first"' in text


def _write_special(writer: Any, tokenizer: Any, ends: Sequence[int]) -> None:
    """Write the special tokens, which of them every text begins and ends with, and the chat template."""
    found = {name: getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "unk", "pad")}
    # The token that ends a turn, where it is not the one that ends a text.
    found["eot"] = next((number for number in ends if number != found["eos"]), None)
    for name, number in found.items():
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    first, last = added_tokens(tokenizer)
    writer.add_add_bos_token(first)
    writer.add_add_eos_token(last)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def added_tokens(tokenizer: Any) -> tuple[bool, bool]:
    """Return whether the tokenizer puts its first and its last special token around a text."""
    ids = tokenizer("a")["input_ids"]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    return bos is not None and ids[:1] == [bos], eos is not None and ids[-1:] == [eos]
