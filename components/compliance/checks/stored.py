"""Checks of what is kept: retention, forgetting, backups, the audit log, logs of requests."""

from __future__ import annotations

from datetime import timedelta

from raypath.components.compliance.checks.data import NO_ENDPOINT, NO_RUNS
from raypath.components.compliance.evidence import Evidence
from raypath.components.compliance.outcome import Answer, met, not_applicable, not_met, partly, unknown
from raypath.components.compliance.profile import Profile
from raypath.components.data.wording import plural

WITH_ROWS = ("artifacts", "scratch", "predictions")
"""Kinds of retention that hold rows of the data, or texts of requests."""
WITH_EVENTS = ("usage", "logs", "runs", "predictions")
"""Kinds that show what happened in service."""


def retention_set(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether what holds rows or texts is deleted after a time."""
    days = evidence.retention.days
    named = [kind for kind in WITH_ROWS if kind in days]
    missing = [kind for kind in WITH_ROWS if kind not in days]
    remedy = f"raypath retention set {' '.join(f'{kind}=90' for kind in missing)}"
    if not named:
        return not_met("retention.json has no days for artifacts, scratch and predictions: they are kept", remedy)
    if missing:
        return partly(f"retention.json has no days for {', '.join(missing)}", remedy)
    return met("retention.json: " + ", ".join(f"{kind} {days[kind]} days" for kind in named))


def retention_applied(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether nothing is older than its retention time."""
    found = evidence.retention
    if not found.days:
        return not_applicable("no retention times are set")
    if found.overdue:
        what = ", ".join(f"{count} of {kind}" for kind, count in found.overdue.items())
        return not_met(f"older than their retention time: {what}", "raypath retention apply")
    if found.unenforced and "artifacts" in found.days:
        what = f"{found.unenforced}, so that Raypath deletes no artifacts in it"
        return partly(what, "delete them by rules of the bucket, or start a new home")
    last = f"; last deletion {found.applied:%Y-%m-%d}" if found.applied else ""
    return met(f"nothing is older than its retention time{last}")


def forgetting_possible(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether the rows of a subject can be found."""
    if evidence.forgetting.unsearchable:
        return unknown(f"{evidence.forgetting.unsearchable}, so that `raypath forget` cannot search its rows")
    reading = [run for run in evidence.runs if "read.uri" in run.settings]
    if not reading:
        return unknown(NO_RUNS, "raypath run WORKFLOW -s read.id=COLUMN")
    without = [run for run in reading if not (run.settings.get("read.id") or run.settings.get("read.group"))]
    if without:
        last = without[-1]
        what = f"run {last.id} has neither read.id nor read.group, so that rows do not name their subject"
        return not_met(what, f"raypath run {last.workflow} -s read.id=COLUMN")
    return met(f"rows name their subject (read.id, read.group) in {plural(len(reading), 'run')}")


def forgetting_done(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether subjects were forgotten completely, models included."""
    found = evidence.forgetting
    if found.failed:
        what = f"{plural(found.failed, 'subject')} could not be forgotten, by the audit log"
        return not_met(what, "raypath audit list --action subject.forget, then raypath forget ID")
    trained = [each for each in evidence.champions if each.forgotten]
    if trained:
        first = trained[0]
        what = f"{first.name} version {first.version} is champion and learned from {first.forgotten} forgotten subjects"
        remedy = "raypath run WORKFLOW, on data without them; then raypath promote"
        late = found.last is None or evidence.at - found.last > timedelta(days=profile.forget_days)
        return not_met(what, remedy) if late else partly(what, remedy)
    if not found.done:
        return met("no subject was forgotten here so far, by the audit log")
    return met(f"{plural(found.done, 'subject')} forgotten, and no champion learned from them")


def audit_verified(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether the audit log is there and as it was written."""
    log = evidence.audit
    if log.problems:
        return not_met(
            f"the audit log has {plural(len(log.problems), 'problem')}: {log.problems[0]}", "raypath audit verify"
        )
    if not log.records:
        return unknown("the audit log has no records yet", "raypath run WORKFLOW")
    return met(f"the audit log verifies: {plural(log.records, 'record')}, {plural(log.anchors, 'signed anchor')}")


def audit_anchored(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether anchors of the audit log are kept where its writers cannot change them."""
    log = evidence.audit
    if log.elsewhere and log.anchors:
        return met(f"{plural(log.anchors, 'anchor')} agree with the log; copies go to {log.elsewhere}")
    remedy = "export RAYPATH_AUDIT_ANCHORS=s3://BUCKET/PREFIX, then raypath audit anchor"
    if log.anchors:
        return partly("anchors of the audit log are in the home only", remedy)
    return not_met("the audit log has no anchors", remedy)


def backup_recent(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether the last backup is recent."""
    found = evidence.backup
    remedy = f"raypath backup create {found.place or 'PLACE'}"
    if found.made is None:
        return not_met("the audit log has no backup of this home", remedy)
    age = evidence.at - found.made
    if age > timedelta(days=profile.backup_days):
        return not_met(f"the last backup is {age.days} days old, at {found.place}", remedy)
    if found.failed.startswith("backup"):
        return partly(
            f"the last backup at {found.place} is of {found.made:%Y-%m-%d}, and a later {found.failed}", remedy
        )
    return met(f"the last backup is of {found.made:%Y-%m-%d}, at {found.place}")


def backup_verified(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether a backup was read back without problems."""
    found = evidence.backup
    remedy = f"raypath backup verify {found.place or 'PLACE'}"
    if found.made is None:
        return not_met("the audit log has no backup of this home", "raypath backup create PLACE")
    if found.failed.startswith("verification"):
        return not_met(f"the last {found.failed}", remedy)
    if found.verified is None:
        return not_met(f"the backup at {found.place} was never verified", remedy)
    age = evidence.at - found.verified
    if age > timedelta(days=profile.verify_days):
        return partly(f"the last verification of a backup is {age.days} days old", remedy)
    return met(f"a backup was verified on {found.verified:%Y-%m-%d}")


def requests_logged(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether requests to endpoints leave a record."""
    if not evidence.served:
        return not_applicable(NO_ENDPOINT)
    silent = [run for run in evidence.served if not run.settings.get("serve.log_requests")]
    if not silent:
        return met(f"serve.log_requests is on in {plural(len(evidence.served), 'run')}, and usage is counted by key")
    remedy = f"raypath run {silent[-1].workflow} -s serve.log_requests=true"
    return partly(f"run {silent[-1].id} counts usage by key and minute, and has serve.log_requests off", remedy)


def logs_kept(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether logs are kept for as long as they have to be."""
    short = {
        kind: days
        for kind in WITH_EVENTS
        if (days := evidence.retention.days.get(kind)) is not None and days < profile.log_days
    }
    if short:
        kind, days = next(iter(short.items()))
        what = f"retention.json deletes {kind} after {days} days, and {profile.log_days} are required"
        return not_met(what, f"raypath retention set {kind}={profile.log_days}")
    return met(f"usage, logs, runs and predictions are kept for {profile.log_days} days at least")
