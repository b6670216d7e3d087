"""Language models: which tokens are hidden, and the loss against one computed without us."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.models.language_models import CAUSAL, MASKED, Vocabulary, head_is_new, load_vocabulary
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.tasks.language_model import IGNORED, LanguageModel, mask
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.training.batches.token_dataset import TokenDataset
from tests.tiny import save_tokenizer, tiny_bert, tiny_config

METADATA = ModelMetadata(task="language_model", labels=(), label_kind="none", max_length=64)
WORDS = Vocabulary(auto=MASKED, size=1000, special=(0, 1, 2, 3), mask=3)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with the head of its language model."""
    from transformers import BertForMaskedLM

    folder = tmp_path_factory.mktemp("masked")
    torch.manual_seed(0)
    BertForMaskedLM(tiny_config(max_position_embeddings=128)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("causal")
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "vocab_size": 30522}
    GPT2LMHeadModel(GPT2Config(bos_token_id=101, eos_token_id=102, pad_token_id=0, **shape)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def _rows(count: int = 12) -> TokenDataset:
    """Rows of 3 to 40 tokens between [CLS] and [SEP]; the first one holds nothing but these."""
    rng = np.random.default_rng(5)
    texts = [[], *(rng.integers(1000, 30000, size=n).tolist() for n in rng.integers(1, 38, size=count - 1))]
    pieces = [[101, *text, 102] for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces])])
    return TokenDataset(np.concatenate(pieces).astype(np.int32), offsets.astype(np.int64), np.zeros(count, np.int64))


def _task(folder: Path, share: float = 0.15) -> tuple[LanguageModel, Any]:
    task = load_task(METADATA, ObjectiveParams(mask=share))
    assert isinstance(task, LanguageModel)
    return task, task.build(str(folder), 0.0).eval()


def _batch(task: LanguageModel, count: int = 12) -> dict[str, torch.Tensor]:
    return task.inputs(_rows(count).batch(np.arange(count), 0), np.random.default_rng(1))


def test_tokens_are_hidden_in_the_shares_of_the_bert_paper() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 1000, size=(4000, 50))
    shown, labels = mask(ids, np.ones_like(ids, bool), 0.15, WORDS, np.random.default_rng(1))
    chosen = labels != IGNORED
    many = chosen.sum()
    # A row without any by lot gets one: n * p + (1 - p) ** n tokens of a row are expected.
    expected = 4000 * (50 * 0.15 + 0.85**50)
    assert abs(many - expected) < 4 * math.sqrt(4000 * 50 * 0.15 * 0.85)
    assert (labels[chosen] == ids[chosen]).all()
    assert (shown[~chosen] == ids[~chosen]).all()
    hidden, kept = (shown[chosen] == 3).sum() / many, (shown[chosen] == ids[chosen]).sum() / many
    spread = 4 / math.sqrt(many)
    assert abs(hidden - (0.8 + 0.1 / 1000)) < 0.4 * spread
    assert abs(kept - (0.1 + 0.1 / 1000)) < 0.3 * spread
    strange = shown[chosen][(shown[chosen] != 3) & (shown[chosen] != ids[chosen])]
    assert abs(len(strange) / many - 0.1) < 0.3 * spread
    assert abs(strange.mean() - 500) < 4 * 289 / math.sqrt(len(strange)), "they are drawn from the whole vocabulary"


def test_at_least_one_token_a_row_and_never_a_special_one() -> None:
    ids = np.array([[1, 7, 2, 0], [1, 2, 0, 0], [1, 8, 9, 2]])
    able = ids > 3
    for seed in range(200):
        shown, labels = mask(ids, able, 0.01, WORDS, np.random.default_rng(seed))
        assert ((labels != IGNORED).sum(axis=1) >= [1, 0, 1]).all()
        assert (labels[~able] == IGNORED).all()
        assert (shown[~able] == ids[~able]).all()


def test_the_same_dice_hide_the_same_tokens(masked: Path) -> None:
    task, _ = _task(masked)
    batch = _rows().batch(np.arange(12), 0)
    before = batch["input_ids"].clone()
    one, two, other = (task.inputs(batch, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(batch["input_ids"], before), "the rows themselves stay as they are"
    assert torch.equal(one["input_ids"], two["input_ids"])
    assert torch.equal(one["labels"], two["labels"])
    assert not torch.equal(one["labels"], other["labels"])
    specials = torch.isin(before, torch.tensor([0, 100, 101, 102, 103]))
    assert bool((one["labels"][specials] == IGNORED).all())
    assert task.weight(one) == float((one["labels"] >= 0).sum()) >= 11


def test_the_masked_loss_is_that_of_transformers(masked: Path) -> None:
    from transformers import AutoModelForMaskedLM

    task, model = _task(masked)
    batch = _batch(task)
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    theirs = AutoModelForMaskedLM.from_pretrained(masked).eval()
    with torch.no_grad():
        ours = float(task.loss(task.forward(model, batch), batch)) / task.weight(batch)
        wanted = float(theirs(**given, labels=batch["labels"]).loss)
    assert ours == pytest.approx(wanted, rel=1e-5)


def test_the_causal_loss_is_that_of_transformers(causal: Path) -> None:
    from transformers import AutoModelForCausalLM

    task, model = _task(causal)
    rows = _rows()
    batch = _batch(task)
    plain = rows.batch(np.arange(12), 0)
    assert torch.equal(batch["input_ids"], plain["input_ids"]), "a causal model has nothing hidden"
    labels = plain["input_ids"].masked_fill(plain["attention_mask"] == 0, IGNORED)
    theirs = AutoModelForCausalLM.from_pretrained(causal).eval()
    with torch.no_grad():
        ours = float(task.loss(task.forward(model, batch), batch)) / task.weight(batch)
        given = {"input_ids": plain["input_ids"], "attention_mask": plain["attention_mask"]}
        wanted = float(theirs(**given, labels=labels).loss)
    assert task.weight(batch) == len(rows.ids) - len(rows)
    assert ours == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_metrics_against_plain_torch(kind: str, request: pytest.FixtureRequest) -> None:
    task, model = _task(request.getfixturevalue(kind))
    batch = _batch(task)
    with torch.no_grad():
        recorded = task.record(task.forward(model, batch), batch).numpy()
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.double()
    assert recorded.shape == (12, task.outputs)
    if kind == "masked":
        assert recorded[0].tolist() == [0, 0, 0], "the row without words has nothing to guess"
    chosen = batch["labels"] != IGNORED
    likely = logits.softmax(-1)[chosen].gather(1, batch["labels"][chosen][:, None]).log()
    found = task.metrics(np.zeros(12), task.decode(recorded))
    assert found["loss"] == pytest.approx(-float(likely.mean()), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(-float(likely.mean())), rel=1e-4)
    assert found["accuracy"] == pytest.approx(float((logits.argmax(-1) == batch["labels"])[chosen].double().mean()))
    assert task.score(None, found) == -found["perplexity"]


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_the_head_on_chosen_tokens_alone_learns_as_the_whole_one(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    losses, gradients = [], []
    for whole in (False, True):
        task, model = _task(folder)
        assert task._selector is not None
        assert task._selector._hook is not None
        if whole:
            task._selector._hook.remove()
            task._selector._hook = None
        batch = _batch(task)
        outputs = task.forward(model, batch)
        assert outputs.shape == (int(task.weight(batch)), 30522)
        loss = task.loss(outputs, batch)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-4, rtol=1e-3), name


def test_a_head_that_needs_the_whole_row_is_given_it(masked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.bert.modeling_bert import BertOnlyMLMHead

    plain = BertOnlyMLMHead.forward
    monkeypatch.setattr(BertOnlyMLMHead, "forward", lambda self, x: plain(self, x + x.mean(dim=1, keepdim=True)))
    task, model = _task(masked)
    assert task._selector is not None
    assert task._selector._hook is None
    batch = _batch(task)
    assert task.forward(model, batch).shape == (int(task.weight(batch)), 30522)


def test_rows_with_nothing_to_guess_cost_nothing_and_break_nothing(masked: Path) -> None:
    task, model = _task(masked)
    batch = _batch(task, count=1)
    assert task.weight(batch) == 0
    outputs = task.forward(model, batch)
    loss = task.loss(outputs, batch)
    loss.backward()
    assert float(loss.detach()) == 0
    assert task.record(outputs, batch).tolist() == [[0, 0, 0]]
    with pytest.raises(DataError, match="no token to predict"):
        task.metrics(np.zeros(1), np.zeros((1, 3)))


def test_the_base_decides_masked_or_causal(masked: Path, causal: Path, tmp_path: Path) -> None:
    words = load_vocabulary(masked)
    assert (words.auto, words.mask, words.size) == (MASKED, 103, 30522)
    assert set(words.special) == {0, 100, 101, 102, 103}
    assert (load_vocabulary(causal).auto, load_vocabulary(causal).mask) == (CAUSAL, -1)
    assert not head_is_new(masked, MASKED)
    assert not head_is_new(causal, CAUSAL), "its head is the embeddings"
    sentences = tiny_bert(tmp_path / "sentences")
    assert head_is_new(sentences, MASKED)
    for changes, wanted in (({"is_decoder": True}, CAUSAL), ({}, MASKED)):
        config = json.loads((masked / "config.json").read_text()) | changes
        (sentences / "config.json").write_text(json.dumps(config))
        assert load_vocabulary(sentences).auto == wanted
    (sentences / "config.json").write_text(json.dumps({"model_type": "t5", "is_encoder_decoder": True}))
    with pytest.raises(DataError, match="is a t5; wanted an encoder or a decoder"):
        load_vocabulary(sentences)


def test_labels_of_any_kind_are_taken_and_serving_is_refused() -> None:
    for kind in ("none", "string", "int", "bool", "set", "number"):
        assert load_task(METADATA.model_copy(update={"label_kind": kind})).name == "language_model"
    with pytest.raises(ParamsError, match="cannot be evaluated, registered or served"):
        load_task(METADATA).forward(None, {})
    for part in ("request", "response"):
        with pytest.raises(ParamsError, match=r"a language model cannot be .*; fine-tune from it first"):
            getattr(LanguageModel, part)
    with pytest.raises(ParamsError, match=r"does not support objective\.focal.*it takes mask"):
        load_task(METADATA, ObjectiveParams(focal=1.0))
