"""Texts with the names of special tokens are texts: in training, in service, in workers and without Raypath."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from raypath.components.data.tokenization.tokenizer import TextTokenizer
from tests.components.data.test_text_cut import byte_level, word_piece
from tests.tiny import save_tokenizer

TEXTS = ["a [SEP] b", "[MASK] me", "plain", "<|endoftext|> now", "[CLS][PAD]"]


def rows() -> list[str]:
    """The column of a file that once lost its marks."""
    lines = ["text,label", *(f"{text},pos" for text in TEXTS)]
    return [row["text"] for row in csv.DictReader(lines)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_tokenizer(folder)
    return folder


def test_no_text_has_a_special_token(folder: Path) -> None:
    tokenizer = TextTokenizer(folder, 32)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = {n for n, token in backend.get_added_tokens_decoder().items() if token.special}
    for ids in tokenizer.encode(rows()):
        assert special.isdisjoint(ids[1:-1])
    for tokens in (tokenizer.encode(TEXTS), tokenizer.encode_with_truncation(TEXTS)[0]):
        assert tokens[:2] == [[101, 1037, 1031, 19802, 1033, 1038, 102], [101, 1031, 7308, 1033, 2033, 102]]


def test_workers_and_plain_transformers_have_the_same_tokens(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = TextTokenizer(folder, 32)
    worker: TextTokenizer = pickle.loads(pickle.dumps(tokenizer))
    plain: Any = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)  # as pyfunc_model.py opens it
    assert tokenizer.encode(TEXTS) == worker.encode(TEXTS) == plain(TEXTS)["input_ids"]


@pytest.mark.parametrize("make", [word_piece, byte_level])
def test_a_long_text_may_be_cut_within_such_a_name(make: Any, tmp_path: Path) -> None:
    make().save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer(tmp_path, 24)
    for name in ("[SEP]", "<mask>", "[MASK] "):
        text = name * 500
        assert tokenizer.encode([text]) == [encoding.ids for encoding in tokenizer._rows.encodings([text])]
