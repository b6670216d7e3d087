"""Rewards of pairs in a test split: those of the task, half for the reference itself, and evidence for the gate."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import Column
from raypath.components.core.conversations import Preference as Pair
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.evaluation.generation import catalog
from raypath.components.evaluation.generation.answers import Answers, References
from raypath.components.evaluation.generation.stored import StoredCounts
from raypath.components.inference.generation.evaluation.evidence import gather_answers
from raypath.components.inference.generation.evaluation.prompts import AnswerSettings
from raypath.components.inference.generation.evaluation.rewards import pair_rewards
from raypath.components.models.base_models import weights_digest
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.tasks.objectives.preference import OBJECTIVES
from raypath.components.tasks.preference import Preference
from raypath.components.training.batches.reference_scores import ReferenceScores, add_scores
from tests.tiny_decoders import decoder_folder
from tests.tiny_pairs import labelled_table, pair_table, write_rows

ROWS = 30


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """The base with other weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("trained")
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Dataset:
    """Pairs with the scores of the base."""
    table = pair_table(ROWS)
    table = add_scores(table, ReferenceScores(base, 1, "fp32", 64).of(table))
    said = Pair(({"role": "user", "content": "a"},), ({"role": "assistant", "content": "b"},), ())
    table = table.append_column("input.answers", pa.array([said.dumps()] * ROWS))
    made = write_rows(tmp_path_factory.mktemp("data") / "test", base, table)
    return made.model_copy(update={"reference": weights_digest(base)})


def _objective(name: str) -> dict[str, Any]:
    return {"preference": name, "beta": OBJECTIVES[name].beta, "label_smoothing": 0.0, "margin": 0.5}


def _task(name: str) -> Preference:
    columns = (Column(name="answers", kind="preference", stored="input.answers"),)
    metadata = ModelMetadata(task="preference", labels=(), label_kind=LabelKind.NONE, max_length=64, columns=columns)
    return Preference(metadata, ObjectiveParams(preference=name))  # type: ignore[arg-type]


def test_the_trained_model_names_its_objective() -> None:
    found = _task("dpo_norm").trained_metadata
    assert found.objective == _objective("dpo_norm")
    assert ObjectiveParams.model_validate(found.objective).beta == 5.0


@pytest.mark.parametrize("name", [name for name, facts in OBJECTIVES.items() if facts.pairs])
def test_means_over_rows_are_the_metrics_of_the_task(name: str, data: Dataset, trained: Path) -> None:
    import pyarrow.parquet as pq

    found = pair_rewards(trained, data, range(ROWS), _objective(name), 1)
    assert found is not None
    table = pq.read_table(data.uri)
    scores = ReferenceScores(trained, 1, "fp32", 64).of(table)
    tokens = [[sum(mask[1:]) for mask in table[column].to_pylist()] for column in ("loss_mask", "rejected_mask")]
    reference = [table[column].to_numpy() for column in ("reference_chosen", "reference_rejected")]
    recorded = np.stack([scores[:, 0], tokens[0], scores[:, 1], tokens[1], *reference], axis=1)
    wanted = _task(name).metrics(np.zeros(ROWS, np.int64), recorded)
    names = ("reward_accuracy", "reward_margin", "loss")
    assert found.mean(axis=0) == pytest.approx([wanted[each] for each in names], abs=1e-5)
    some = pair_rewards(trained, data, [3, 17], _objective(name), 1)
    np.testing.assert_allclose(some, found[[3, 17]], atol=1e-4)


def test_the_reference_has_no_reward(data: Dataset, base: Path) -> None:
    found = pair_rewards(base, data, range(ROWS), _objective("dpo"), 1)
    assert found is not None
    assert found.tolist() == [[0.5, 0.0, pytest.approx(np.log(2))]] * ROWS
    simpo = pair_rewards(base, data, range(ROWS), _objective("simpo"), 1)
    assert simpo is not None
    assert abs(simpo[:, 1]).min() > 0, "its rewards need no reference"


def test_rows_without_rewards(data: Dataset, base: Path, tmp_path: Path) -> None:
    assert pair_rewards(base, data, range(ROWS), None) is None, "a model of conversations"
    assert pair_rewards(base, data, range(ROWS), _objective("kto")) is None
    assert pair_rewards(base, data, [], _objective("dpo")) is None
    bare = write_rows(tmp_path / "bare", base, pair_table(4))
    assert pair_rewards(base, bare, range(4), _objective("dpo")) is None, "without a reference"
    assert pair_rewards(base, bare, range(4), _objective("orpo"), 1) is not None
    assert (
        pair_rewards(base, write_rows(tmp_path / "one", base, labelled_table(4)), range(4), _objective("dpo")) is None
    )


def test_the_gate_compares_with_a_champion_that_was_trained_on_conversations(
    data: Dataset, base: Path, trained: Path
) -> None:
    """The champion is the reference: its rewards are computed for the rows of the new version."""
    objective = _objective("dpo")
    rewards = pair_rewards(trained, data, range(0, ROWS, 2), objective, 1)
    counts = catalog.measure(catalog.PREFERENCE, References(()), Answers((), rewards=rewards))
    assert list(counts) == ["reward_accuracy", "reward_margin", "preference_loss"]
    settings = AnswerSettings(ROWS // 2, 8, objective=objective)
    new = StoredCounts(np.arange(0, ROWS, 2), counts, settings.dumps())
    with pytest.raises(DataError, match="are not those that the new version answered"):
        gather_answers(new, base, False, data, "reward_accuracy")
    rows = np.unique(np.linspace(0, ROWS - 1, ROWS // 2).astype(np.int64))
    rewards = pair_rewards(trained, data, rows.tolist(), objective, 1)
    counts = catalog.measure(catalog.PREFERENCE, References(()), Answers((), rewards=rewards))
    found = gather_answers(StoredCounts(rows, counts, settings.dumps()), base, False, data, "reward_accuracy")
    assert found.comparison.old == 0.5
    assert rewards is not None
    assert found.comparison.new == pytest.approx(rewards[:, 0].mean())


def test_settings_of_a_model_of_conversations_have_no_objective() -> None:
    plain = AnswerSettings(5, 8)
    assert "objective" not in plain.dumps()
    assert AnswerSettings.loads(plain.dumps()) == plain
    assert AnswerSettings.loads(AnswerSettings(5, 8, objective=_objective("dpo")).dumps()).objective is not None
