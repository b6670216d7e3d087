"""A tokenizer.json for a unigram vocabulary with the normalization of SentencePiece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raypath.components.models.conversion.charsmap import charsmap

if TYPE_CHECKING:
    from raypath.components.models.conversion.q4_file import Pieces

SPACE = "▁"
"""Character that replaces a space, and begins every text."""
NEVER = -1000.0
"""Log probability of special pieces: `<s>` in a text is divided into its characters, as SentencePiece does."""


def build_tokenizer(found: Pieces) -> Any:
    """Build a fast tokenizer that encodes a text as `<s> text </s>`, a pair as `<s> a </s></s> b </s>`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special = _special(found)
    pieces = [(piece, NEVER if n in special.values() else score) for n, (piece, score) in enumerate(found.pieces)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=found.unknown, byte_fallback=False))
    replaced = normalizers.Precompiled(charsmap(found.normalized))
    spaces = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence([replaced, *spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(found.pieces[n][0], special=True) for n in special.values()])
    begin, end = found.pieces[found.begin][0], found.pieces[found.end][0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} {end} $B {end}",
        special_tokens=[(begin, found.begin), (end, found.end)],
    )
    return tokenizer


def tokenizer_settings(found: Pieces, max_length: int) -> dict[str, Any]:
    """Return the content of tokenizer_config.json."""
    numbers = _special(found)
    numbers |= {"cls": numbers["bos"], "sep": numbers["eos"]}
    tokens = {f"{name}_token": found.pieces[n][0] for name, n in numbers.items()}
    return {**tokens, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length}


def _special(found: Pieces) -> dict[str, int]:
    """Token ids of the special pieces; the last piece is the mask."""
    named = {"bos": found.begin, "pad": found.padding, "eos": found.end, "unk": found.unknown}
    return named | {"mask": len(found.pieces) - 1}
