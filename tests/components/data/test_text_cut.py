"""Tokens of a text that is cut before tokenization are those of the whole text."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from raypath.components.data.tokenization.text_cut import TextCut
from raypath.components.data.tokenization.tokenizer import TextTokenizer

LENGTH = 24
LATIN = "a I tea coffee flavour wonderful internationalization x1 don't e-mail 3.14 naïve Straße Ελλάς"
WORDS = [*LATIN.split(), "北京", "茶", "东京都", "です", "한국어"]
GAPS = [" ", "  ", "\n", "\t", " \n ", "\u00a0", "\u3000", "", " " * 60, "\x1c", "\u2028", "\r\n"]
MARKS = [*".,!?;:-()[]{}@#$%^&*_+=/\\|~`'\"<>", *"。、…؟—😀", "\u0301", "\x00", "\u200b", "[SEP]", "<mask>", "[MASK] "]
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def word_piece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return _trained(made, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL))


def cased() -> Tokenizer:
    made = word_piece()
    made.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False, handle_chinese_chars=False)
    return made


def byte_level() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["[CLS]", "[SEP]", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    return _trained(made, special)


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=["<unk>", "[CLS]", "[SEP]"])
    return _trained(made, special)


def _trained(made: Tokenizer, trainer: Any) -> Tokenizer:
    rng = random.Random(0)
    made.train_from_iterator([" ".join(rng.choices(WORDS, k=20)) for _ in range(200)], trainer)
    ids = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return made


def saved(folder: Path, made: Tokenizer, length: int = LENGTH) -> TextTokenizer:
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    return TextTokenizer(folder, length)


def long_texts(rng: random.Random) -> list[str]:
    """Ordinary ones, and what a cut may fall into: a word, a gap, a run of marks."""
    found = []
    for _ in range(40):
        parts = rng.choice([WORDS, [*WORDS, *MARKS], MARKS, ["北", "京", "茶"], ["a"], [rng.choice(MARKS)]])
        gaps = rng.choice([[" "], GAPS, [""], ["", "", "", " "], [" " * 300]])
        size, text = rng.choice([150, 190, 193, 400, 2_000]), ""
        while len(text) < size:
            text += rng.choice(parts) + rng.choice(gaps)
        found.append(rng.choice(["", " " * 250, "a" * 250, "." * 150]) + text)
    return found


@pytest.mark.parametrize("make", [word_piece, cased, byte_level, unigram])
def test_the_tokens_are_those_of_the_whole_text(make: Callable[[], Tokenizer], tmp_path: Path) -> None:
    tokenizer, rng, cut = saved(tmp_path, make()), random.Random(1), 0
    for _ in range(10):
        texts = long_texts(rng)
        whole = [encoding.ids for encoding in tokenizer._rows.encodings(texts)]
        assert tokenizer.encode(texts) == whole
        for text, row in zip(texts, whole, strict=True):
            for size in (9, 40, 193):
                prefix = tokenizer._rows.cut.prefix(text, size)
                cut += len(prefix) < len(text)
                [found] = tokenizer._rows.encodings([prefix])
                assert found.ids[:-1] == row[: len(found.ids) - 1], (text, prefix)
    assert cut > 200, "texts are cut"


def test_a_tokenizer_that_may_join_words_gets_whole_texts(tmp_path: Path) -> None:
    text = "tea " * 1_000
    joining = word_piece()
    joining.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    spaced = word_piece()
    spaced.add_tokens(["green tea"])
    for made in (joining, spaced, Tokenizer(models.BPE())):
        assert TextCut(made).prefix(text, 100) == text
    assert TextCut(word_piece(), right=False).prefix(text, 100) == text, "the end of the text is kept"
    assert len(TextCut(word_piece()).prefix(text, 100)) == 99


def test_marks_without_a_space_cost_what_a_row_costs(tmp_path: Path) -> None:
    """Two bodies of 4 MB: 200 texts of 20,000 dots took seconds each."""
    tokenizer = saved(tmp_path, word_piece())
    for mark in (".", "…", "北"):
        began = time.process_time()
        rows = tokenizer.encode([mark * 20_000] * 200)
        assert time.process_time() - began < 2
        assert {len(row) for row in rows} == {LENGTH}
