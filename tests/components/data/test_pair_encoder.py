"""Token ids of a pair that is cut before tokenization are those that the library leaves of the whole pair."""

from __future__ import annotations

import json
import pickle
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from raypath.components.data.tokenization.pair_encoder import ORDERED, PairEncoder, longest_first
from raypath.components.data.tokenization.text_pair import TextPair
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from tests.components.data.test_text_cut import GAPS, MARKS, WORDS, byte_level, cased, saved, unigram, word_piece


def roberta() -> Tokenizer:
    """Byte-level BPE with four special tokens around a pair."""
    made = byte_level()
    ends = [(name, made.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    made.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    return made


def a_text(rng: random.Random, size: int) -> str:
    parts = rng.choice([WORDS, [*WORDS, *MARKS], ["北", "京", "茶"], ["a"], ["w" * 150], ["internationalization"]])
    gaps = rng.choice([[" "], GAPS, ["", " "], [" " * 80]])
    text = ""
    while len(text) < size:
        text += rng.choice(parts) + rng.choice(gaps)
    return text


def some_pairs(rng: random.Random, length: int) -> list[TextPair]:
    """Short, long and equal texts. The shorter text has at most the characters up to which the longer one is found."""
    sizes = [0, 1, length // 2, length, 3 * length, 8 * length, 9 * length, 20 * length, 32 * length, 50 * length]
    found = [TextPair(a_text(rng, rng.choice(sizes)), a_text(rng, rng.choice(sizes))) for _ in range(12)]
    found += [TextPair(pair.second, pair.first) for pair in found]
    found += [TextPair(pair.first, pair.first) for pair in found]
    return [pair for pair in found if min(len(pair.first), len(pair.second)) <= ORDERED * 8 * length]


@pytest.mark.parametrize("length", [9, 16, 23])
@pytest.mark.parametrize("make", [word_piece, cased, byte_level, roberta, unigram])
def test_the_tokens_are_those_of_the_whole_pair(make: Callable[[], Tokenizer], length: int, tmp_path: Path) -> None:
    tokenizer, rng = saved(tmp_path, make(), length), random.Random(length)
    pairs = some_pairs(rng, length)
    whole = tokenizer._rows.encodings([*pairs])
    ids = [encoding.ids for encoding in whole]
    assert tokenizer.encode([*pairs]) == ids
    truncated = [bool(encoding.overflowing) for encoding in whole]
    assert tokenizer.encode_with_truncation([*pairs]) == (ids, truncated)
    assert True in truncated
    assert False in truncated
    worker: TextTokenizer = pickle.loads(pickle.dumps(tokenizer))
    assert worker.encode([pairs[0], "tea", pairs[1]]) == [ids[0], *tokenizer.encode(["tea"]), ids[1]]


def test_the_start_of_each_text_is_dropped(tmp_path: Path) -> None:
    saved(tmp_path, word_piece())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"truncation_side": "left"}))
    tokenizer = TextTokenizer(tmp_path, 24)
    pairs = some_pairs(random.Random(0), 24)
    assert tokenizer.encode([*pairs]) == [encoding.ids for encoding in tokenizer._rows.encodings([*pairs])]


def test_of_two_very_long_texts_one_token_may_be_the_other_ones(tmp_path: Path) -> None:
    """Which of them is the longer is decided by their beginnings; the rest is as the library leaves it."""
    tokenizer = saved(tmp_path, word_piece())  # 21 tokens are left for the texts
    long = "tea " * 3_000
    [first, second] = tokenizer.encode([TextPair(long, long), TextPair("tea tea " + long, long)])
    assert first == second
    tea = tokenizer.encode(["tea"])[0][1:-1]
    assert first.count(tea[0]) == 21 // len(tea)


@pytest.mark.parametrize(
    ("first", "second", "spare", "kept"),
    [
        (3, 4, 7, (3, 4)),
        (2, 90, 7, (2, 5)),
        (90, 3, 7, (4, 3)),
        (90, 4, 7, (4, 3)),
        (4, 4, 7, (3, 4)),
        (9, 90, 8, (4, 4)),
        (0, 90, 7, (0, 7)),
    ],
)
def test_longest_first(first: int, second: int, spare: int, kept: tuple[int, int]) -> None:
    assert longest_first(first, second, spare) == kept


def test_time_and_memory_of_long_pairs(tmp_path: Path) -> None:
    """A body of 4 MB took seconds, and two texts of 10,000 dots 2 GB for the parts that are dropped."""
    tokenizer, words = saved(tmp_path, word_piece()), "a wonderful flavour of tea " * 160_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for pair in (TextPair("." * 10_000, "." * 10_000), TextPair("a title", words), TextPair(words, words)):
        for encode in (tokenizer.encode, lambda given: tokenizer.encode_with_truncation(given)[0]):
            began = time.process_time()
            assert {len(row) for row in encode([pair])} == {24}
            assert time.process_time() - began < 0.5
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_a_tokenizer_without_a_token_before_the_first_text(tmp_path: Path) -> None:
    made = word_piece()
    end = ("[SEP]", made.token_to_id("[SEP]"))
    made.post_processor = processors.TemplateProcessing(single="$A [SEP]", pair="$A [SEP] $B", special_tokens=[end])
    tokenizer = saved(tmp_path, made, 9)
    encoder = PairEncoder.of(tokenizer._rows)
    assert encoder is not None
    pair = TextPair("tea " * 20, "a b")
    assert encoder.encode([pair])[0] == tokenizer._rows.rows([pair])
