"""Checks of data: personal data in it, redaction, what is stored of requests, and the data report."""

from __future__ import annotations

from collections.abc import Sequence

from raypath.components.compliance.evidence import Evidence, RunEvidence
from raypath.components.compliance.outcome import Answer, Outcome, met, not_applicable, not_met, partly, unknown
from raypath.components.compliance.profile import CONDITIONS, Profile
from raypath.components.data.wording import plural

NO_RUNS = "no run has completed in this home"
RUN = "raypath run WORKFLOW"
NO_ENDPOINT = "no run has put an endpoint in service"


def personal_data_known(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether the data was searched for personal data, and agrees with the profile."""
    reported = [run for run in evidence.runs if run.data_rows]
    found = {run.id: run.found_persons for run in reported if run.found_persons}
    if found and profile.personal_data is False:
        run, kinds = next(iter(found.items()))
        fix = "set `personal_data: true` in compliance.yaml, or redact with -s redact.enabled=true"
        return not_met(f"compliance.yaml denies personal data, and the report of run {run} found {_kinds(kinds)}", fix)
    if not reported:
        what = "no run has a data report" if evidence.runs else NO_RUNS
        return unknown(what, "raypath run WORKFLOW -s inspect.enabled=true")
    seen = "; ".join(f"run {run}: {_kinds(kinds)}" for run, kinds in found.items()) or "found none by patterns"
    return met(f"the data report looked at {plural(sum(run.data_rows or 0 for run in reported), 'row')} ({seen})")


def redaction_on(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether personal data in texts is replaced before training."""
    return _redaction([run for run in evidence.runs if run.reads_data], "no run has read data")


def redaction_in_service(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether endpoints replace personal data in requests, as models do whose training data was redacted."""
    found = _redaction([run for run in evidence.served if run.reads_data], NO_ENDPOINT)
    earlier = [run for run in evidence.served if not run.champion]
    if found.outcome is Outcome.MET and earlier:
        last = earlier[-1]
        what = f"the endpoint {last.endpoint} serves a version of before run {last.id}, which had redact.enabled on"
        return partly(what, "look at the champion's run in raypath models; raypath promote another version")
    return found


def _redaction(runs: Sequence[RunEvidence], none: str) -> Answer:
    if not runs:
        return not_applicable(none)
    plain = [run for run in runs if run.settings.get("redact.enabled") is not True]
    if not plain:
        kinds = runs[-1].settings.get("redact.kinds") or []
        return met(f"redact.enabled is on in {_names(runs)}, for {plural(len(kinds), 'kind')} of data")
    remedy = f"raypath run {plain[-1].workflow} -s redact.enabled=true"
    if "redact.enabled" not in plain[-1].settings:
        remedy = f"redact the data before {plain[-1].workflow} reads it: this workflow has no step redact"
    if len(plain) < len(runs):
        return partly(f"redact.enabled is off in {_names(plain)}", remedy)
    found = [run for run in plain if run.found_persons]
    more = f", and its data report found {_kinds(found[-1].found_persons)}" if found else ""
    return not_met(f"redact.enabled is off in {_names(plain)}{more}", remedy)


def texts_not_stored(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether texts of requests stay out of the prediction log."""
    if not evidence.served:
        return not_applicable(NO_ENDPOINT)
    storing = [run for run in evidence.served if run.settings.get("serve.log_texts")]
    if not storing:
        return met(f"serve.log_texts is off in {_names(evidence.served)}")
    redacted = all(run.settings.get("redact.enabled") is True for run in storing)
    remedy = f"raypath run {storing[-1].workflow} -s serve.log_texts=false"
    if redacted:
        return partly(f"serve.log_texts is on in {_names(storing)}; the texts are redacted", remedy)
    return not_met(f"serve.log_texts is on in {_names(storing)}", remedy)


def data_documented(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether a data report describes rows, columns, classes, languages and faults of the data."""
    if not evidence.runs:
        return unknown(NO_RUNS, RUN)
    reported = [run for run in evidence.runs if run.data_rows]
    trained = [run for run in evidence.runs if run.test_rows is not None]
    missing = [run for run in trained if not run.data_rows]
    if not reported:
        return not_met("no run has a data report", "raypath run WORKFLOW -s inspect.enabled=true")
    faulty = [run for run in reported if run.data_errors]
    if faulty:
        what = f"the data report of run {faulty[-1].id} has {plural(faulty[-1].data_errors, 'error')}"
        return partly(what, "read report.html of the step inspect, and apply its settings: raypath inspect --apply")
    if missing:
        return partly(f"{_names(missing)} has no data report", "raypath run WORKFLOW -s inspect.enabled=true")
    return met(f"the data report of {_names(reported)} has no errors")


def profile_answered(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether the project says which requirements concern it."""
    derived = {"generation"} if evidence.runs else set()
    missing = [name for name in CONDITIONS if getattr(profile, name) is None and name not in derived]
    if not missing:
        return met(f"compliance.yaml answers all {len(CONDITIONS)} questions")
    what = f"compliance.yaml does not answer {', '.join(missing)}; what depends on them counts as applicable"
    return partly(what, f"write `{missing[0]}: true` or `false` to compliance.yaml")


def _names(runs: Sequence[RunEvidence]) -> str:
    return f"run {runs[-1].id}" if len(runs) == 1 else f"{len(runs)} runs, the last one {runs[-1].id}"


def _kinds(found: dict[str, int]) -> str:
    return ", ".join(f"{kind.replace('_', ' ')} in {plural(rows, 'row')}" for kind, rows in found.items())
