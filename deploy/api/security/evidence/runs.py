"""Evidence from the run history: settings, data reports, evaluations and endpoints of the latest runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raypath.components.compliance.evidence import RunEvidence
from raypath.components.encryption.envelope import is_sealed
from raypath.components.encryption.vault import vault_for
from raypath.deploy.execution.run_history import Run, RunStatus, load_runs
from raypath.deploy.store.store import SHARED, place_of

_REPORT = "report.json"
_MOST_BYTES = 64 << 20
_LANGUAGE_WORKFLOWS = frozenset({"chat", "preference", "text_to_text", "batch_generation"})


def runs_of(home: Path) -> Iterator[RunEvidence]:
    """Yield the latest completed run of each workflow and model name, the oldest first."""
    latest: dict[tuple[str, str], Run] = {}
    for run in load_runs(home):
        if run.status is RunStatus.DONE:
            key = run.workflow, str(run.params.get("registry.name", ""))
            latest.pop(key, None)
            latest[key] = run
    yield from (_evidence(home, run) for run in latest.values())


def _evidence(home: Path, run: Run) -> RunEvidence:
    artifacts = [step.artifact for step in run.steps if step.status.succeeded and step.artifact]
    endpoint = next((each for each in artifacts if {"url", "name", "version"} <= each.keys()), None)
    release = next((each for each in artifacts if {"alias", "version", "serving"} <= each.keys()), None)
    tested = next((each for each in artifacts if {"model", "data", "metrics"} <= each.keys()), None)
    inspected = _report_of(home, run, "inspect")
    evaluated = _report_of(home, run, "evaluate")
    tasks = {str(each.get("task", "")) for each in artifacts} | {
        str((each.get("model") or {}).get("task", "")) for each in artifacts if isinstance(each.get("model"), dict)
    }
    slices = _slices(evaluated, run.params.get("read.slices") or ())
    rows = inspected.get("rows")
    return RunEvidence(
        id=run.id,
        workflow=run.workflow,
        ended=datetime.fromtimestamp(run.ended or run.started, UTC),
        settings=run.params,
        cluster=bool(run.cluster),
        endpoint=str(endpoint["name"]) if endpoint else "",
        language_model=_is_language_model(run, tasks),
        champion=release is None or release["version"] == release["serving"],
        reads_data="read.uri" in run.params,
        data_rows=int(rows) if rows else None,
        data_errors=sum(each.get("severity") == "error" for each in inspected.get("findings", ())),
        personal_data={str(kind): int(count) for kind, count in (inspected.get("personal_data") or {}).items()},
        test_rows=int((tested.get("data") or {}).get("rows") or 0) if tested else None,
        metrics={name: float(value) for name, value in tested["metrics"].items()} if tested else {},
        confidence=bool(evaluated.get("coverage") or evaluated.get("thresholds")),
        slices=len(slices),
        worse=tuple(f"{each['column']}={each['value']}" for each in slices if each.get("worse")),
    )


def _plaintext(home: Path, file: Path) -> bytes:
    """Return the contents of a file of the store. Raises UserError without the master key of an encrypted one."""
    vault = vault_for(home) if is_sealed(file) else None
    return file.read_bytes() if vault is None else vault.open(None, file.read_bytes())


def _is_language_model(run: Run, tasks: set[str]) -> bool:
    generating = {"text_generation", "preference", "text_to_text"}
    return bool(tasks & generating) or run.workflow in _LANGUAGE_WORKFLOWS


def _slices(report: dict[str, Any], columns: Any) -> list[dict[str, Any]]:
    """Return the slices by columns of the user's; those by length of the text are left out."""
    return [each for each in report.get("slices", ()) if each.get("column") in columns]


def _report_of(home: Path, run: Run, name: str) -> dict[str, Any]:
    """Return the report.json of a step; {} for none, and for one that cannot be read."""
    step = next((each for each in run.steps if each.name == name and each.artifact), None)
    place = place_of(str((step.artifact or {}).get("uri", ""))) if step else None
    if place is None:
        return {}
    remote = os.environ.get(SHARED, "")
    root = Path(remote).expanduser() if remote and "://" not in remote else home
    file = root / "artifacts" / place[0] / place[1] / _REPORT
    try:
        if file.stat().st_size > _MOST_BYTES:
            return {}
        found = json.loads(_plaintext(home, file))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
