"""Page on a comparison with the champion: rows won and lost, with their texts where they are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raypath.components import Context
from raypath.components.core.context import NoTracker
from raypath.components.inference.batch.comparison import write_page
from raypath.components.inference.batch.rivals import Side, gather
from raypath.components.registry.evidence import Rules, comparison_report, decide
from raypath.components.reports.evaluation.columns import texts_of
from raypath.components.reports.evaluation.comparison import LISTED, render_comparison, write_comparison
from tests.tiny_classifier import LABELS, texts, tiny_classifier, tiny_dataset, tiny_report


class Logged(NoTracker):
    """Tracker that keeps the text of the files that are logged to it."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def artifact(self, path: Path, folder: str = "") -> None:
        self.files[f"{folder}/{path.name}"] = path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["string", "set", "number"])
def test_rows_won_and_lost_are_shown_with_their_predictions(
    kind: str, tmp_path: Path, make_context: Callable[..., Context]
) -> None:
    model = tiny_classifier(tmp_path / "model", LABELS, kind)
    data = tiny_dataset(tmp_path / "data", model, rows=120)
    new, old = (
        Side(Path(model.uri), Path(tiny_report(tmp_path / name, model, data, right).uri))
        for name, right in (("new", 0.9), ("old", 0.5))
    )
    metric = {"number": "mae"}.get(kind, "macro_f1")
    evidence = gather(new, old, data, metric)
    report = comparison_report(evidence, decide(evidence, "version <3>", Rules()), "version <3>", "mine.csv")
    assert report.promoted
    assert (report.whole.won, report.whole.lost, len(report.lost)) == (48, 0, 0)
    rows = [each.row for each in report.won]
    assert len(rows) == LISTED
    assert set(rows) <= set(range(60, 108)), "right in the new model alone"
    for each in report.won:
        assert each.new == each.label != each.old
    path = write_comparison(tmp_path / "out", report, texts_of(data, rows))
    page = path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(texts(120)[row][:200] in page for row in rows)
    assert "version &lt;3&gt;" in page
    assert "<3>" not in page
    bare = render_comparison(report, {})
    assert not any(texts(120)[row] in bare for row in rows)
    notes = Logged()
    ctx = make_context("register", track=notes)
    write_page(ctx, report, data)
    assert (ctx.out / "comparison.html").read_text(encoding="utf-8") == page
    assert notes.files == {"evaluation/comparison.html": bare}, "texts stay here"
    back = gather(old, new, data, metric)
    assert ([each.row for each in back.lost], list(back.won)) == (rows, [])
