"""Rows of two answers: how their tokens are joined, selected and packed, and that sharing a prompt changes nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raypath.components import DataError
from raypath.components.models.decoder.packed_decoder import PackedDecoder
from raypath.components.tasks.preference import answer_scores
from raypath.components.training.batches.pairs import REFERENCES, Pairs, join_answers
from raypath.components.training.batches.token_dataset import (
    StreamedTokens,
    TokenDataset,
    in_memory,
    load_token_dataset,
    longest_row,
)
from tests.tiny_decoders import PADDED, tiny_decoder
from tests.tiny_pairs import IDS, MASK, pair_table

CHOSEN = [[1, 2, 3, 4], [5, 6], [7, 8, 9]]
REJECTED = [[1, 2, 9], [5, 7, 8, 9], [1, 8]]


def table_of(chosen: list[list[int]], rejected: list[list[int]], prompt: int = 1, **more: Any) -> pa.Table:
    """A preprocessed table of pairs; the first `prompt` tokens of an answer are not learned."""

    def mask(rows: list[list[int]]) -> pa.Array:
        return pa.array([[n >= prompt for n in range(len(row))] for row in rows], MASK)

    columns = {"input_ids": pa.array(chosen, IDS), "loss_mask": mask(chosen)}
    return pa.table({**columns, "rejected_ids": pa.array(rejected, IDS), "rejected_mask": mask(rejected), **more})


def test_the_chosen_answer_comes_before_the_rejected_one() -> None:
    ids, mask, lengths, pairs = join_answers(table_of(CHOSEN, REJECTED))
    assert ids.tolist() == [1, 2, 3, 4, 1, 2, 9, 5, 6, 5, 7, 8, 9, 7, 8, 9, 1, 8]
    assert (ids.dtype, mask.dtype) == (np.int32, np.bool_)
    assert np.flatnonzero(~mask).tolist() == [0, 4, 7, 9, 13, 16]
    assert lengths.tolist() == [7, 6, 5]
    assert pairs.firsts.tolist() == [4, 2, 3]
    assert pairs.shared.tolist() == [0, 0, 0], "a prompt of one token is repeated"
    assert pairs.references is None
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    assert pairs.answer_offsets(offsets).tolist() == [0, 4, 7, 9, 13, 16, 18]
    assert pairs.longest(lengths) == 4


def test_a_row_has_the_prompt_of_both_answers_once() -> None:
    chosen, rejected = [[1, 2, 3, 4, 5], [1, 2, 3, 9]], [[1, 2, 3, 7], [1, 5, 3, 8, 7]]
    rows = in_memory(table_of(chosen, rejected, prompt=3))
    assert rows.pairs is not None
    assert rows.pairs.shared.tolist() == [2, 0], "the second prompts differ after a token, which is repeated"
    assert rows.ids.tolist() == [1, 2, 3, 4, 5, 3, 7, 1, 2, 3, 9, 1, 5, 3, 8, 7]
    assert rows.lengths.tolist() == [7, 9]
    assert longest_row(rows) == 5
    batch = rows.packed(np.array([1, 0]))
    assert batch["row_starts"].tolist() == [0, 4, 9, 14, 16]
    assert batch["shared"].tolist() == [0, 0, 0, 2]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 2, 3]]
    assert batch["labels"].tolist() == [[-100, -100, 9, -100, -100, -100, 8, 7, -100, -100, -100, 4, 5, -100, 7, -100]]
    assert len(batch["targets"]) == 2


def _apart(table: pa.Table) -> TokenDataset:
    """The answers of a table as ordinary rows, the chosen one of each before the rejected."""
    answers = [(table["input_ids"], table["loss_mask"]), (table["rejected_ids"], table["rejected_mask"])]
    pieces = [[column.to_pylist() for column in columns] for columns in answers]
    ids = [pieces[turn][0][row] for row in range(len(table)) for turn in (0, 1)]
    masks = [pieces[turn][1][row] for row in range(len(table)) for turn in (0, 1)]
    return in_memory(pa.table({"input_ids": pa.array(ids, IDS), "loss_mask": pa.array(masks, MASK)}))


@pytest.mark.parametrize(
    "kind", ["llama", "mistral with a window", "gemma2 with a cap", "gpt-oss with sinks", "gpt2", "mamba"]
)
def test_answers_that_share_a_prompt_score_and_learn_as_rows_of_their_own(kind: str) -> None:
    table = pair_table(7)
    together, apart = in_memory(table), _apart(table)
    assert int(together.lengths.sum()) < int(apart.lengths.sum())
    model = tiny_decoder(kind)
    decoder = PackedDecoder(model)
    assert decoder.packs == (kind not in PADDED)
    rows = np.arange(7)
    found = []
    for batch in (together.packed(rows), apart.packed(np.arange(14))):
        scores = answer_scores(decoder, batch)
        model.zero_grad()
        (scores[:, 0] * torch.linspace(-1, 1, 14)).sum().backward()
        found.append((scores.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_scores_are_those_of_transformers() -> None:
    table, model = pair_table(5), tiny_decoder("llama").eval()
    with torch.no_grad():
        found = answer_scores(PackedDecoder(model), in_memory(table).packed(np.arange(5))).reshape(5, 4)
        plain = tiny_decoder("llama").eval()
        for row in range(5):
            for turn, name in enumerate(("input", "rejected")):
                ids = torch.tensor(table[f"{name}_ids"][row].as_py())
                mask = torch.tensor(table["loss_mask" if name == "input" else "rejected_mask"][row].as_py())
                logs = torch.log_softmax(plain(input_ids=ids[None]).logits[0, :-1], dim=1)
                wanted = logs.gather(1, ids[1:, None])[:, 0][mask[1:]]
                assert found[row, 2 * turn].item() == pytest.approx(wanted.sum().item(), abs=1e-4)
                assert found[row, 2 * turn + 1].item() == len(wanted)


def test_facts_of_rows_follow_them() -> None:
    references = {name: pa.array([-1.0, -2.0, -3.0 - n], pa.float32()) for n, name in enumerate(REFERENCES)}
    pairs = join_answers(table_of(CHOSEN, REJECTED, **references))[3]
    some = pairs.rows(np.array([2, 0]))
    assert some.firsts.tolist() == [3, 4]
    assert some.references is not None
    assert some.references.tolist() == [[-3, -4], [-1, -1]]
    both = Pairs.joined([some, pairs])
    assert both.firsts.tolist() == [3, 4, 4, 2, 3]
    assert both.references is not None
    assert both.references.shape == (5, 2)


def test_rows_in_files_have_the_batches_of_rows_in_memory(tmp_path: Path) -> None:
    table = pair_table(30)
    scores = np.random.default_rng(0).normal(size=(2, 30)).astype(np.float32)
    for name, column in zip(REFERENCES, scores, strict=True):
        table = table.append_column(name, pa.array(column))
    pq.write_table(table, tmp_path / "00000.parquet", row_group_size=7)
    whole, parts = load_token_dataset(tmp_path), load_token_dataset(tmp_path, window=200)
    assert isinstance(whole, TokenDataset)
    assert isinstance(parts, StreamedTokens)
    np.testing.assert_array_equal(whole.lengths, parts.lengths)
    rows = np.array([29, 0, 8, 7, 15])
    one, two = whole.packed(rows), parts.packed(rows)
    assert one.keys() == two.keys() >= {"shared", "references"}
    assert all(torch.equal(one[name], two[name]) for name in one)
    np.testing.assert_array_equal(one["references"].numpy(), scores.T[rows])


def test_rows_that_do_not_fit_together_are_refused() -> None:
    table = table_of(CHOSEN, REJECTED)
    swapped = table.set_column(3, "rejected_mask", table["loss_mask"])
    with pytest.raises(DataError, match="rejected_mask of another length than its rejected_ids; run preprocess"):
        join_answers(swapped)
    references = {name: pa.array([-1.0, float("nan"), -3.0], pa.float32()) for name in REFERENCES}
    with pytest.raises(DataError, match="of the reference that is not finite"):
        join_answers(table_of(CHOSEN, REJECTED, **references))
