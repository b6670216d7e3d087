"""Features are computed once, and a head trained on them is the head that the frozen model would have got."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypath.components.core.artifacts import Dataset, Model, Settings, Splits
from raypath.components.core.errors import DataError
from raypath.components.data.streaming import parquet
from raypath.components.data.streaming.manifest import read_manifest
from raypath.components.extract import ExtractParams, _chosen, extract
from raypath.components.finetune import FinetuneParams, ResolvedParams, finetune
from raypath.components.training.batches import frozen_features
from raypath.components.training.batches.frozen_features import Features
from raypath.components.training.batches.token_dataset import load_token_dataset
from tests.components.test_finetune import NOTHING, Notes
from tests.tiny import tiny_bert, tiny_gpt2, write_part


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Splits:
    made = [
        write_part(tmp_path_factory.mktemp(n), base, 150, seed) for seed, n in enumerate(("train", "valid", "test"))
    ]
    return Splits(train=made[0], valid=made[1], test=made[2])


def _params(base: Path, **changes: Any) -> ResolvedParams:
    plain = {"base": str(base), "epochs": 2, "lr": 3e-3, "batch_tokens": 256, "threads": 1}
    return ResolvedParams().override(plain | changes)


def _placed(splits: Splits, out: Path) -> tuple[Dataset, Dataset]:
    """What the store does on commit: addresses below `out`."""
    train, valid = (p.model_copy(update={"uri": str(out / p.uri)}) for p in (splits.train, splits.valid))
    return train, valid


def test_the_features_are_the_encoders_states_of_the_first_token(base: Path, parts: Splits, make_context: Any) -> None:
    from transformers import BertModel

    ctx = make_context("extract")
    made = extract.fn(ctx, parts, ExtractParams(base=str(base), method="head"))
    assert made.test == parts.test
    rows = load_token_dataset(_placed(made, ctx.out)[0].uri)
    plain = load_token_dataset(parts.train.uri)
    assert rows.features is not None
    np.testing.assert_array_equal(rows.ids, plain.ids)
    model = BertModel.from_pretrained(base).eval()
    for row in (0, 7, 149):
        ids = torch.from_numpy(plain.ids[plain.offsets[row] : plain.offsets[row + 1]].astype(np.int64))[None]
        with torch.no_grad():
            state = model(input_ids=ids).last_hidden_state[0, 0].numpy()
        np.testing.assert_allclose(rows.features[row], state, atol=1e-5)


def test_one_of_several_workers_computes_the_same_on_one_thread() -> None:
    assert Features(Path("base"), 8, "bf16", 102).alone() == Features(Path("base"), 1, "bf16", 102)


def test_full_fine_tuning_is_handed_its_rows_as_they_are(parts: Splits, make_context: Any) -> None:
    ctx = make_context("extract")
    assert extract.fn(ctx, parts, ExtractParams.of(ResolvedParams())) == parts
    assert not list(ctx.out.iterdir())


def test_a_head_on_features_learns_what_a_head_on_a_frozen_model_learns(
    base: Path, parts: Splits, make_context: Any, ray_head: None
) -> None:
    ctx = make_context("extract")
    head = _params(base, method="head")
    train, valid = _placed(extract.fn(ctx, parts, ExtractParams.of(head)), ctx.out)
    quick, slow = Notes(), Notes()
    first = make_context("finetune", track=quick)
    finetune.fn(first, train, valid, NOTHING, head)
    second = make_context("finetune", track=slow)
    finetune.fn(second, parts.train, parts.valid, NOTHING, _params(base, frozen_layers=2))
    assert quick.points["train/loss"].keys() == slow.points["train/loss"].keys()
    for step, loss in slow.points["train/loss"].items():
        assert quick.points["train/loss"][step] == pytest.approx(loss, abs=1e-4)
    from safetensors.torch import load_file

    one, two = (load_file(c.out / "model.safetensors") for c in (first, second))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-3) for name in one)
    encoder = load_file(base / "model.safetensors")
    assert all(torch.equal(one[f"bert.{n}"], w) for n, w in encoder.items() if "pooler" not in n)


def test_a_head_without_features_is_told_what_is_missing(base: Path, parts: Splits, make_context: Any) -> None:
    with pytest.raises(DataError, match="put the step `extract` before"):
        finetune.fn(make_context("finetune"), parts.train, parts.valid, NOTHING, _params(base, method="head"))
    other = parts.model_copy(update={"train": parts.train.model_copy(update={"tokenizer": "0" * 64})})
    with pytest.raises(DataError, match="another tokenizer"):
        extract.fn(make_context("extract"), other, ExtractParams(base=str(base), method="head"))


def test_features_are_computed_in_the_precision_of_finetune(base: Path, parts: Splits, make_context: Any) -> None:
    found = {}
    for precision in ("fp32", "bf16", "auto"):
        ctx = make_context("extract")
        made = extract.fn(ctx, parts, ExtractParams.of(_params(base, method="head", precision=precision)))
        found[precision] = load_token_dataset(_placed(made, ctx.out)[0].uri).features
    np.testing.assert_array_equal(found["auto"], found["fp32"], "tests say that no machine has bf16")
    assert (found["bf16"] != found["fp32"]).any()
    np.testing.assert_allclose(found["bf16"], found["fp32"], atol=0.1)


def test_features_of_another_encoder_are_refused(base: Path, parts: Splits, make_context: Any, tmp_path: Path) -> None:
    ctx, head = make_context("extract"), _params(base, method="head")
    rows = _placed(extract.fn(ctx, parts, ExtractParams.of(head)), ctx.out)
    other = tiny_bert(tmp_path / "other", seed=1)
    with pytest.raises(DataError, match=f"with another encoder than that of {other}; use the same base for"):
        finetune.fn(make_context("finetune"), *rows, NOTHING, _params(other, method="head"))
    trained = Model(uri=str(other), task="language_model", base=str(base), max_length=64)
    with pytest.raises(DataError, match=f"than that of {base}, trained further; .* or set finetune.method=full"):
        finetune.fn(make_context("finetune"), *rows, NOTHING, head, trained)


def test_a_base_whose_head_reads_another_token_is_refused(
    base: Path, parts: Splits, make_context: Any, tmp_path: Path
) -> None:
    decoder = tiny_gpt2(tmp_path, eos_token_id=102)
    with pytest.raises(DataError, match="reads only the first token; that of a gpt2 does not; set finetune"):
        extract.fn(make_context("extract"), parts, ExtractParams.of(_params(decoder, method="head")))
    ctx, head = make_context("extract"), _params(base, method="head")
    train = _placed(extract.fn(ctx, parts, ExtractParams.of(head)), ctx.out)[0]
    with pytest.raises(DataError, match="one of train and valid has features, the other not"):
        finetune.fn(make_context("finetune"), train, parts.valid, NOTHING, head)


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert", "Electra", "GPT2"])
def test_which_heads_read_the_first_token_is_tried(kind: str) -> None:
    import transformers

    from raypath.components.models.heads.head_check import check_head

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(**shape)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    if kind == "GPT2":
        with pytest.raises(DataError, match="reads only the first token"):
            check_head(model)
    else:
        check_head(model)
    assert "forward" not in vars(model.base_model), "it is left as it was"
    assert model.training


def test_features_have_the_same_bytes_in_one_process_and_by_tasks(
    base: Path, make_context: Any, ray_head: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of two row groups; one process with two threads, one task at a time, two tasks at once."""
    monkeypatch.setattr(parquet, "FILE_ROWS", 4_096)
    splits = {}
    for seed, (name, count) in enumerate({"train": 6_000, "valid": 2_500, "test": 10}.items()):
        (tmp_path / name).mkdir()
        splits[name] = write_part(tmp_path / name, base, count, seed)
    made = []
    for inline, workers in ((1 << 30, 2), (0, 1), (0, 2)):
        monkeypatch.setattr(frozen_features, "INLINE_ROWS", inline)
        ctx = make_context("extract")
        object.__setattr__(ctx, "workers", workers)
        extract.fn(ctx, Splits(**splits), ExtractParams(base=str(base), method="head"))
        files = sorted(ctx.out.rglob("*.parquet"))
        made.append({str(path.relative_to(ctx.out)): path.read_bytes() for path in files})
        assert bool(read_manifest(ctx.out / "train")) == (inline == 0)
    assert list(made[0]) == ["train/00000.parquet", "train/00001.parquet", "valid/00000.parquet"]
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize(
    ("params", "values", "wanted"),
    [
        ({"method": "full", "base": "x"}, {"method": "head"}, ("x", "full")),
        ({"method": "auto", "base": "x"}, {"method": "head", "base": "y"}, ("y", "head")),
        ({"method": "auto", "base": "x"}, {}, ("x", "full")),
        ({"method": "auto", "base": "x"}, None, ("x", "full")),
        ({"method": "head", "base": "x"}, {"base": "y"}, ("y", "head")),
    ],
)
def test_base_and_method_that_are_chosen(
    params: dict[str, Any], values: dict[str, Any] | None, wanted: tuple[str, str]
) -> None:
    settings = None if values is None else Settings(values=values)
    assert _chosen(ExtractParams(**params), settings) == wanted


def test_settings_follow_those_of_finetune() -> None:
    head = ExtractParams.of(FinetuneParams(method="head", base="b", precision="bf16"))
    assert head.model_dump() == {"base": "b", "method": "head", "precision": "bf16"}
    # `configure` may choose a head, such as for a budget of minutes.
    chosen = ExtractParams.of(FinetuneParams(base="b", precision="bf16"))
    assert chosen.model_dump() == {"base": "b", "method": "auto", "precision": "bf16"}
    other = ExtractParams.of(FinetuneParams(method="full", base="b", precision="bf16"))
    assert other.model_dump() == {"base": "", "method": "full", "precision": "auto"}
