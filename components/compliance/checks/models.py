"""Checks of models: signatures, cards, evaluation, slices, rollback."""

from __future__ import annotations

from raypath.components.compliance.checks.data import NO_RUNS, RUN
from raypath.components.compliance.evidence import Evidence
from raypath.components.compliance.outcome import Answer, met, not_applicable, not_met, partly, unknown
from raypath.components.compliance.profile import Profile
from raypath.components.data.wording import plural

NO_REGISTRY = unknown("the model registry cannot be read from here", "raypath up")
NO_CHAMPION = "no model is in the registry as champion"


def models_signed(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether every version has a valid signature."""
    if evidence.versions is None:
        return NO_REGISTRY
    if not evidence.versions:
        return not_applicable("no model is registered")
    bad = [each for each in evidence.versions if each.problem]
    if bad:
        first = bad[0]
        named = f"{first.name} version {first.version}"
        more = f" ({plural(len(bad), 'version')} in all)" if len(bad) > 1 else ""
        return not_met(
            f"{named} {first.problem}{more}", f"look at it, then raypath models --sign {first.name} {first.version}"
        )
    return met(f"records of {plural(len(evidence.versions), 'version')}: signed by trusted keys")


def model_card(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether champions have a model card."""
    if evidence.versions is None:
        return NO_REGISTRY
    if not evidence.champions:
        return not_applicable(NO_CHAMPION)
    without = [each for each in evidence.champions if not each.card]
    if not without:
        return met(f"model cards: {', '.join(each.card for each in evidence.champions)}")
    first = without[0]
    remedy = f"raypath export models:/{first.name}/{first.version} --to hf DIR"
    if first.described:
        what = f"{first.name} version {first.version} has a description in the registry, and no model card"
        return partly(what, remedy)
    return not_met(f"{first.name} version {first.version} has no model card", remedy)


def accuracy_measured(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether models are evaluated on rows that they did not see, with confidence intervals."""
    if not evidence.runs:
        return unknown(NO_RUNS, RUN)
    tested = [run for run in evidence.runs if run.test_rows]
    if not tested:
        return not_met("no run has evaluated a model on a test split", "raypath run text_classification")
    run = tested[-1]
    intervals = sorted(name.removesuffix("_low") for name in run.metrics if name.endswith("_low"))
    if not intervals:
        what = f"run {run.id} evaluates on {plural(run.test_rows or 0, 'row')}, without confidence intervals"
        return partly(what, f"raypath run {run.workflow} -s evaluate.resamples=1000")
    name = intervals[0]
    low, high = run.metrics[f"{name}_low"], run.metrics.get(f"{name}_high", 0.0)
    shown = f"{name} {run.metrics.get(name, 0.0):.3f} ({low:.3f} to {high:.3f})"
    return met(f"run {run.id} evaluates on {plural(run.test_rows or 0, 'row')}: {shown}")


def slices_measured(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether groups of rows are compared, to find bias."""
    if not evidence.runs:
        return unknown(NO_RUNS, RUN)
    tested = [run for run in evidence.runs if run.test_rows]
    remedy = f"raypath run {tested[-1].workflow if tested else 'WORKFLOW'} -s read.slices=COLUMN"
    if not tested or not tested[-1].slices:
        return not_met("no evaluation compares slices of the test rows", remedy)
    run = tested[-1]
    if run.worse:
        what = f"run {run.id} compares {run.slices} slices; worse than the others: {', '.join(run.worse[:3])}"
        return partly(what, "look at report.html of the step evaluate; collect more rows of these slices")
    return met(f"run {run.id} compares {run.slices} slices, and none is worse than the others beyond chance")


def confidence_shown(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether it is measured how far the confidence of predictions can be trusted."""
    if not evidence.runs:
        return unknown(NO_RUNS, RUN)
    tested = [run for run in evidence.runs if run.test_rows]
    shown = [run for run in tested if run.confidence]
    if not tested:
        return not_met("no run has evaluated a model on a test split", "raypath run text_classification")
    if not shown:
        return unknown(f"the evaluation of run {tested[-1].id} has no confidence of predictions")
    return met(f"the report of run {shown[-1].id} shows accuracy by confidence: uncertain cases can go to a person")


def rollback_possible(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether a champion can be replaced by an earlier signed version."""
    if evidence.versions is None:
        return NO_REGISTRY
    if not evidence.champions:
        return not_applicable(NO_CHAMPION)
    valid = {(each.name, each.version) for each in evidence.versions if not each.problem}
    lone = [each for each in evidence.champions if (each.name, each.previous) not in valid]
    if not lone:
        first = evidence.champions[0]
        return met(f"raypath rollback {first.name} returns to version {first.previous}, which is signed")
    what = f"{lone[0].name} version {lone[0].version} has no signed champion before it to return to"
    return partly(what, "keep the versions before; a backup restores them: raypath backup create PLACE")


def output_filtered(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether responses of language models are filtered."""
    served = [run for run in evidence.generates if run.endpoint]
    if not served:
        return not_applicable("no language model is in service")
    modes = {str(run.settings.get("serve.filter_output", "off")): run for run in served}
    remedy = f"raypath run {served[-1].workflow} -s serve.filter_output=all"
    if "off" in modes:
        return not_met(f"serve.filter_output is off in run {modes['off'].id}", remedy)
    if "secrets" in modes:
        return partly(f"serve.filter_output is secrets in run {modes['secrets'].id}: personal data passes", remedy)
    return met(f"serve.filter_output is all in run {served[-1].id}")


def stated(evidence: Evidence, profile: Profile) -> Answer:
    """Leave the answer to a signed statement."""
    return unknown("only a person can know this")
