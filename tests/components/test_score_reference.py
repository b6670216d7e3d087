"""The reference is scored once: by the model that training starts from, resumable, and for nothing that needs none."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from raypath.components.core.artifacts import Dataset, Model, Splits
from raypath.components.core.errors import DataError
from raypath.components.finetune import FinetuneParams, ResolvedParams, finetune
from raypath.components.score_reference import ScoreReferenceParams, score_reference
from raypath.components.tasks.objectives.preference import OBJECTIVES
from raypath.components.training.batches import reference_scores, reference_tasks
from raypath.components.training.batches.pairs import REFERENCES
from raypath.deploy.execution.cache_key import own_key_inputs
from raypath.workflows.preference import Preferences, preference
from tests.components.test_finetune import NOTHING
from tests.tiny_decoders import decoder_folder
from tests.tiny_pairs import BAD, GOOD, answer, labelled_table, pair_table, questions, write_rows


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("decoder"))


def _splits(folder: Path, base: Path, make: Any = pair_table) -> Splits:
    counts = {"train": 40, "valid": 12, "test": 5}
    made = {
        name: write_rows(folder / name, base, make(count, seed), seed)
        for seed, (name, count) in enumerate(counts.items())
    }
    return Splits(**made)


def _params(base: Path, objective: str = "dpo", **more: Any) -> ResolvedParams:
    changes = {"base": str(base), "task": "preference", "objective.preference": objective, "precision": "fp32"}
    return ResolvedParams().override(changes | more)


def _placed(splits: Splits, out: Path) -> tuple[Dataset, Dataset]:
    train, valid = (p.model_copy(update={"uri": str(out / p.uri)}) for p in (splits.train, splits.valid))
    return train, valid


def _log_probability(base: Path, ids: list[int], mask: list[bool]) -> float:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base).eval()
    with torch.no_grad():
        logs = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, :-1].float(), dim=1)
    return float(logs[torch.arange(len(ids) - 1), torch.tensor(ids[1:])][torch.tensor(mask[1:])].sum())


def test_scores_of_pairs_are_the_models_own(decoder: Path, make_context: Any, tmp_path: Path) -> None:
    splits, ctx = _splits(tmp_path, decoder), make_context("score_reference")
    made = score_reference.fn(ctx, splits, ScoreReferenceParams.of(_params(decoder)))
    train, valid = _placed(made, ctx.out)
    assert train.reference == valid.reference == made.test.reference != ""
    assert REFERENCES[0] in pq.read_schema(ctx.out / made.test.uri / "00000.parquet").names
    table, before = pq.read_table(train.uri), pq.read_table(splits.train.uri)
    assert table.column_names == [*before.column_names, *REFERENCES]
    assert table.select(before.column_names) == before
    for row in (0, 17, 39):
        for ids, mask, name in (("input_ids", "loss_mask", 0), ("rejected_ids", "rejected_mask", 1)):
            wanted = _log_probability(decoder, before[ids][row].as_py(), before[mask][row].as_py())
            assert table[REFERENCES[name]][row].as_py() == pytest.approx(wanted, abs=1e-3)


def test_single_answers_get_one_to_another_prompt(decoder: Path, make_context: Any, tmp_path: Path) -> None:
    splits, ctx = _splits(tmp_path, decoder, labelled_table), make_context("score_reference")
    _, valid = _placed(score_reference.fn(ctx, splits, ScoreReferenceParams.of(_params(decoder, "kto"))), ctx.out)
    table = pq.read_table(valid.uri)
    words = questions(12, 1)
    for row in range(12):
        other = (row + 1) % 12
        ids, mask = answer(words[row], 0)
        theirs, their_mask = answer(words[other], (BAD, GOOD)[other % 2])
        start, theirs_start = mask.index(True), their_mask.index(True)
        assert table["rejected_ids"][row].as_py() == ids[:start] + theirs[theirs_start:]
        assert table["rejected_mask"][row].as_py() == mask[:start] + their_mask[theirs_start:]
    wanted = _log_probability(decoder, table["rejected_ids"][3].as_py(), table["rejected_mask"][3].as_py())
    assert table["reference_rejected"][3].as_py() == pytest.approx(wanted, abs=1e-3)


def test_an_interrupted_step_scores_the_rest(
    decoder: Path, make_context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_tasks, "SCORED_ROWS", 8)
    splits, params = _splits(tmp_path, decoder), ScoreReferenceParams.of(_params(decoder))
    whole = make_context("score_reference")
    score_reference.fn(whole, splits, params)
    compute, scored = reference_scores.ReferenceScores.of, []

    def counting(self: Any, table: Any) -> Any:
        scored.append(len(table))
        if len(scored) == 4:
            raise KeyboardInterrupt
        return compute(self, table)

    monkeypatch.setattr(reference_scores.ReferenceScores, "of", counting)
    cut = make_context("score_reference")
    with pytest.raises(KeyboardInterrupt):
        score_reference.fn(cut, splits, params)
    (cut.scratch / "train" / "000000008.npy").write_bytes(b"half")
    again = make_context("score_reference")
    object.__setattr__(again, "scratch", cut.scratch)
    score_reference.fn(again, splits, params)
    # Five parts of train, of which three were kept and one of these was spoiled; two of valid and one of test.
    assert scored[4:] == [8, 8, 8, 8, 4, 5]
    for path in sorted(whole.out.rglob("*.parquet")):
        assert path.read_bytes() == (again.out / path.relative_to(whole.out)).read_bytes()


@pytest.mark.parametrize("name", [name for name, facts in OBJECTIVES.items() if not facts.reference])
def test_an_objective_without_a_reference_leaves_the_rows(
    name: str, decoder: Path, make_context: Any, tmp_path: Path
) -> None:
    splits, ctx = _splits(tmp_path, decoder), make_context("score_reference")
    params = ScoreReferenceParams.of(_params(decoder, name))
    assert params == ScoreReferenceParams() == ScoreReferenceParams.of(FinetuneParams())
    assert score_reference.fn(ctx, splits, params) == splits
    assert not list(ctx.out.iterdir())


def test_rows_scored_by_another_model_are_refused(decoder: Path, make_context: Any, tmp_path: Path) -> None:
    splits = _splits(tmp_path, decoder)
    with pytest.raises(DataError, match=r"dpo needs log-probabilities of a reference.*put the step `score_reference`"):
        finetune.fn(make_context("finetune"), splits.train, splits.valid, NOTHING, _params(decoder))
    ctx = make_context("score_reference")
    rows = _placed(score_reference.fn(ctx, splits, ScoreReferenceParams.of(_params(decoder))), ctx.out)
    other = decoder_folder(tmp_path / "other", "qwen2")
    start = Model(uri=str(other), task="text_generation", base=str(decoder), max_length=64)
    with pytest.raises(DataError, match=f"are of another reference than {decoder}; use the same base"):
        finetune.fn(make_context("finetune"), *rows, NOTHING, _params(decoder), start)
    labelled = _splits(tmp_path / "kto", decoder, labelled_table)
    ctx = make_context("score_reference")
    scored = score_reference.fn(ctx, labelled, ScoreReferenceParams.of(_params(decoder, "kto")), None, start)
    assert scored.train.reference != rows[0].reference, "what training starts from is the reference"


def test_scores_are_finite_and_of_the_precision_of_finetune(decoder: Path, make_context: Any, tmp_path: Path) -> None:
    splits, found = _splits(tmp_path, decoder), {}
    for precision in ("fp32", "bf16"):
        ctx = make_context("score_reference")
        params = ScoreReferenceParams.of(_params(decoder, precision=precision))
        train, _ = _placed(score_reference.fn(ctx, splits, params), ctx.out)
        found[precision] = pq.read_table(train.uri)["reference_chosen"].to_numpy()
    assert np.isfinite(found["bf16"]).all()
    assert (found["bf16"] != found["fp32"]).any()
    np.testing.assert_allclose(found["bf16"], found["fp32"], rtol=0.05)


@pytest.mark.parametrize("make", [pair_table, labelled_table])
def test_scores_have_the_same_bytes_in_one_process_and_by_tasks(
    make: Any, decoder: Path, make_context: Any, ray_head: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process with one thread, one task at a time, two at once of which some were done before."""
    monkeypatch.setattr(reference_tasks, "SCORED_ROWS", 8)
    monkeypatch.setattr(reference_tasks, "TASK_ROWS", 16)
    splits = _splits(tmp_path, decoder, make)
    params = ScoreReferenceParams.of(_params(decoder, "dpo" if make is pair_table else "kto"))
    made: list[dict[str, bytes]] = []
    kept = Path()
    for inline, workers in ((1 << 30, 1), (0, 1), (0, 2)):
        monkeypatch.setattr(reference_tasks, "INLINE_ROWS", inline)
        ctx = make_context("score_reference")
        object.__setattr__(ctx, "workers", workers)
        if workers == 2:
            (ctx.scratch / "train").mkdir()
            shutil.copyfile(kept / "000000016.npy", ctx.scratch / "train" / "000000016.npy")
        score_reference.fn(ctx, splits, params)
        made.append({str(path.relative_to(ctx.out)): path.read_bytes() for path in sorted(ctx.out.rglob("*.parquet"))})
        kept = ctx.scratch / "train"
        rows = 16 if inline == 0 else 8
        assert sorted(path.name for path in kept.iterdir()) == [f"{first:09d}.npy" for first in range(0, 40, rows)]
    assert [name.split("/")[0] for name in made[0]] == ["test", "train", "valid"][0 if make is pair_table else 1 :]
    assert made[0] == made[1] == made[2]


def test_only_what_the_reference_is_changes_the_key_of_the_step() -> None:
    """beta, the rate, the rank and the passes change none of its inputs, so that its record is found."""

    def inputs(changes: dict[str, Any]) -> tuple[dict[str, str], list[tuple[str, ...]]]:
        params = Preferences(finetune=FinetuneParams(task="preference", base="hf://team/base"))
        graph = preference.trace(params.override({f"finetune.{name}": value for name, value in changes.items()}))
        [node] = [each for each in graph.nodes if each.name == "score_reference"]
        return own_key_inputs(node, graph), [(ref.step, *ref.fields) for ref in node.inputs]

    own, others = inputs({})
    assert others == [("preprocess",), ("configure", "inputs")]
    changes = {"objective.beta": 0.3, "lr": 1e-3, "lora": 8, "epochs": 5, "objective.label_smoothing": 0.1}
    assert inputs(changes) == (own, others)
    assert inputs({"base": "hf://team/other"})[0] != own
