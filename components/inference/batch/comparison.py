"""Comparison of a new version with the champion in `register`: the decision, and its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Dataset, Report
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.files import is_disk_full
from raypath.components.inference.batch.baseline import decide_first
from raypath.components.inference.batch.rivals import Side, gather
from raypath.components.registry.cache import cache_folder
from raypath.components.registry.client import RegisteredVersion, find_version, read_aliases, registered, resolve
from raypath.components.registry.evidence import Decision, Evidence, Rules, comparison_report, decide
from raypath.components.registry.tags import CHAMPION, unpack
from raypath.components.reports.evaluation.columns import texts_of
from raypath.components.reports.evaluation.comparison import ComparisonReport, write_comparison
from raypath.components.tracking.tags import PRECISION_SPEED, PREVIOUS_CHAMPION, TEST_DIGEST

NOT_WRITTEN = "the page of the comparison was not written (%s)"


@dataclass
class Contest:
    """A new version, as `report` evaluated it, against the champion. metric: that decides."""

    ctx: Context
    report: Report
    metric: str
    rules: Rules
    decision: Decision | None = None
    """Of `decide`; None before it was called."""

    def decide(self, champion: RegisteredVersion | None, tags: Mapping[str, str]) -> Decision:
        """Decide if the new version, of these tags, replaces the champion, and write comparison.html.

        Raises DataError for a champion that is not signed or was altered.
        """
        self.decision = self._decide(champion, tags)
        return self.decision

    def _decide(self, champion: RegisteredVersion | None, tags: Mapping[str, str]) -> Decision:
        if champion is None:
            return decide_first(self.report, self.metric, self.rules)
        folder = self._folder(champion)
        try:
            evidence = self._evidence(champion, folder, tags)
        except DataError as error:
            return Decision(False, f"not comparable with {_named(champion)}: {error.what}")
        decision = decide(evidence, _named(champion), self.rules)
        self._write(evidence, decision, champion)
        return decision

    def resume(self, client: Any, name: str, version: int, promoted: bool, reason: str) -> None:
        """Compare again, for the page of a decision that an earlier attempt took.

        The rival is the champion, or the one before where the version itself is champion. A failure is a warning: the
        decision stands.
        """
        try:
            tags = client.get_model_version(name, str(version)).tags
            number = read_aliases(client, name).get(CHAMPION, 0)
            number = int(tags.get(PREVIOUS_CHAMPION) or 0) if number == version else number
            found = find_version(client, name, number) if number else None
            if found is None:
                return
            rival = registered(found)
            evidence = self._evidence(rival, self._folder(rival), tags)
            self.decision = Decision(promoted, reason, decide(evidence, _named(rival), self.rules).chance)
            self._write(evidence, self.decision, rival)
        except Exception as error:
            self.ctx.log.warning(NOT_WRITTEN, type(error).__name__)
            self.ctx.log.debug(NOT_WRITTEN, type(error).__name__, exc_info=True)

    def _folder(self, champion: RegisteredVersion) -> Path:
        source = f"models:/{champion.name}/{champion.version}"
        return resolve(self.ctx.tracking.uri, source, cache_folder(self.ctx.signing), self.ctx.signing)[2]

    def _evidence(self, champion: RegisteredVersion, folder: Path, tags: Mapping[str, str]) -> Evidence:
        ctx, report = self.ctx, self.report
        same_rows = champion.facts.get(TEST_DIGEST) == report.data.digest
        new = Side(Path(report.model.uri), ctx.input(report) if report.uri else None)
        old = Side(folder, folder if same_rows else None)
        return gather(
            new, old, report.data, self.metric, ctx.workers, ctx.seed, float(unpack(tags).get(PRECISION_SPEED, 0))
        )

    def _write(self, evidence: Evidence, decision: Decision, champion: RegisteredVersion) -> None:
        data = self.report.data
        write_page(self.ctx, comparison_report(evidence, decision, _named(champion), data.source), data)


def write_page(ctx: Context, page: ComparisonReport, data: Dataset) -> None:
    """Write comparison.html with the texts of the rows that it names, and log it without them.

    An unexpected error other than a full disk is logged as a warning: the decision does not depend on the page.
    """
    try:
        rows = sorted({each.row for each in (*page.won, *page.lost)})
        write_comparison(ctx.out, page, texts_of(data, rows))
        ctx.track.artifact(write_comparison(ctx.scratch / ".comparison", page, {}), "evaluation")
    except Exception as error:
        if is_disk_full(error):  # once there is room, the step runs again
            raise
        ctx.log.warning(NOT_WRITTEN, type(error).__name__)
        ctx.log.debug(NOT_WRITTEN, type(error).__name__, exc_info=True)


def _named(champion: RegisteredVersion) -> str:
    return f"version {champion.version}"
