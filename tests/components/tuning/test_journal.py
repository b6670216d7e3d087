"""The journal of a search: it goes on where a kill cut it short, and knows the best trial."""

from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError, StepFailed
from raypath.components.tuning.journal import FAILED, FINISHED, STOPPED, TrialJournal


def _reach(journal: TrialJournal, trial: int, rung: int, score: float, **more: Any) -> None:
    facts = {"value": -score, "metric": "log_loss", "metrics": {"log_loss": -score}, "seconds": 1.5, "clone": ""}
    values = journal.entries[trial].values
    journal.reach(trial, **{"rung": rung, "score": score, "values": values, **facts, **more})


def _ledger(folder: Path, trials: int = 0) -> TrialJournal:
    journal = TrialJournal(folder / "search.jsonl", 2)
    for trial in range(trials):
        journal.propose(trial, {"lr": 10.0**-trial})
    return journal


def test_it_is_read_as_it_was_written_without_a_line_that_was_cut_short(tmp_path: Path) -> None:
    journal = _ledger(tmp_path, 2)
    _reach(journal, 0, 1, 0.5)
    journal.end(0, DataError("größer", fix="kleiner"), seconds=2.0)
    with open(journal.path, "a", encoding="utf-8") as file:
        file.write('{"event": "rung", "trial": 1, "ü')
    again = _ledger(tmp_path)
    assert again.entries == journal.entries
    _reach(again, 1, 1, 0.25)
    last = _ledger(tmp_path)
    assert last.entries == again.entries
    assert last.entries[1].score == 0.25
    assert last.entries[0].seconds == 3.5
    (error,) = last.errors()
    assert (type(error), error.what, error.fix) == (DataError, "größer", "kleiner")


def test_an_unknown_error_is_told_as_a_step_that_failed(tmp_path: Path) -> None:
    journal = _ledger(tmp_path, 1)
    journal.end(0, type("Own", (DataError,), {})("what", fix="fix"))
    assert [type(error) for error in journal.errors()] == [StepFailed]


def test_the_best_came_furthest_and_then_has_the_highest_score(tmp_path: Path) -> None:
    journal = _ledger(tmp_path, 5)
    assert journal.best() is None
    _reach(journal, 1, 1, 0.9)
    assert journal.best() is journal.entries[1]
    for trial, score in ((0, 0.3), (2, 0.4), (3, 0.4), (4, 0.8)):
        _reach(journal, trial, 1, 0.5)
        _reach(journal, trial, 2, score)
    journal.end(4, DataError("out", fix=""))
    assert journal.best() is journal.entries[2], "of equals the first, and none that failed"


def test_a_trial_ends_by_how_far_it_came(tmp_path: Path) -> None:
    journal = _ledger(tmp_path, 4)
    _reach(journal, 0, 2, 0.5)
    _reach(journal, 1, 1, 0.5)
    _reach(journal, 3, 2, 0.5)
    for trial in (0, 1):
        journal.end(trial)
    journal.end(3, DataError("late", fix=""))
    again = _ledger(tmp_path)
    assert [entry.status for entry in again.entries.values()] == [FINISHED, STOPPED, "", FAILED]
    assert [entry.trial for entry in again.open()] == [2]
    _reach(again, 2, 2, 0.5)
    assert _ledger(tmp_path).entries[2].status == FINISHED, "killed between its last rung and its end"


def test_a_clone_has_the_scores_of_its_new_weights_alone(tmp_path: Path) -> None:
    journal = _ledger(tmp_path, 1)
    _reach(journal, 0, 1, 0.1)
    _reach(journal, 0, 2, 0.2)
    _reach(journal, 0, 1, 0.7, clone="trial-01", values={"lr": 0.5})
    (row,) = _ledger(tmp_path).table()
    assert (row["rung"], row["score"], row["values"], row["clones"]) == (1, 0.7, {"lr": 0.5}, ["trial-01"])
    assert row["seconds"] == 4.5
    assert "error" not in row


def test_the_time_before_a_kill_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("raypath.components.tuning.journal.time.monotonic", lambda: clock[0])
    journal = _ledger(tmp_path)
    clock[0] = 107.0
    journal.propose(0, {})
    clock[0] = 5000.0
    again = _ledger(tmp_path)
    clock[0] += 2.0
    assert again.elapsed() == pytest.approx(9.0)
