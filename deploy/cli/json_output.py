"""`--json`: the result of a command as JSON on standard output, and nothing else there.

Each command prints one model of `raypath.deploy.api` or a list of them; docs/json.md describes them. What a command
reports on the way goes to standard error, as errors do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter

from raypath.components.compliance.review import Review
from raypath.components.core.errors import ParamsError, RaypathError
from raypath.components.inspection.report import InspectionReport
from raypath.components.risk.assessment import Assessment
from raypath.deploy.api import listings, models, plans, runs, services
from raypath.deploy.api.listings import Check, CreatedKey, Key, UsageRow, WorkflowDetail, WorkflowInfo
from raypath.deploy.api.results import CertificateStatus, ModelVersion, Plan, Promotion, Status
from raypath.deploy.api.run_results import Run
from raypath.deploy.api.security.backups import BackupCheck, CreatedBackup, SnapshotInfo
from raypath.deploy.api.security.certificates import certificates
from raypath.deploy.api.security.compliance import SignedStatement
from raypath.deploy.api.security.encryption import EncryptionStatus
from raypath.deploy.api.security.signatures import RotatedKey, VersionSignature
from raypath.deploy.cli.commands import changes
from raypath.deploy.cli.security import audit, backup, comply, encryption, risk, signatures, tls
from raypath.deploy.console.json_text import write_json
from raypath.deploy.store.audit.records import AuditRecord
from raypath.deploy.store.audit.verify import Verification

Function = Callable[[argparse.Namespace], Any]


def print_json(args: argparse.Namespace) -> int:
    """Run a command and print its result; returns the exit status. Raises what the command raises."""
    # Ray, MLflow and launchers print; standard output is for the result alone.
    with contextlib.redirect_stdout(sys.stderr):
        function, kind = _selected(args)
        result, error = _called(function, args)
    if result is not None:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        write_json(json.loads(adapter.dump_json(result)))
    if error is not None:
        raise error
    for asked, status in ((comply.review, comply.exit_status), (risk.assess, risk.exit_status)):
        if function is asked:
            return int(status(result, args))
    exit_status = EXIT_STATUS.get(function)
    return 0 if exit_status is None else exit_status(result)


def _called(function: Function, args: argparse.Namespace) -> tuple[Any, RaypathError | None]:
    """The result; of a run that failed, the run with its failed step beside the error."""
    before = {run.id: run.status for run in runs.runs(home=args.home)} if function is _run else {}
    try:
        return function(args), None
    except RaypathError as error:
        found = [run for run in runs.runs(home=args.home) if run.status == "failed"] if function is _run else []
        failed = next((run for run in reversed(found) if before.get(run.id) != "failed"), None)
        return failed, error


def _selected(args: argparse.Namespace) -> tuple[Function, Any]:
    name = args.command
    if name == "run" and args.dry_run:
        name = "run --dry-run"
    elif name == "runs" and args.run:
        name = "runs RUN"
    elif name == "models":
        options = {"--verify": args.verify, "--sign": args.sign, "--rotate-key": args.rotate_key}
        name = " ".join([name, *(option for option, given in options.items() if given)])
    return COMMANDS[name]


def _reject(given: Any, option: str) -> None:
    if given:
        raise ParamsError(f"{option} prints something else than --json", fix="give one of them")


def _inspect(args: argparse.Namespace) -> InspectionReport:
    from raypath.deploy.cli.inspect import inspect_files

    return inspect_files(args)


def _list(args: argparse.Namespace) -> list[WorkflowInfo]:
    return listings.workflows()


def _show(args: argparse.Namespace) -> WorkflowDetail:
    return listings.workflow_detail(args.workflow, changes(args))


def _check(args: argparse.Namespace) -> Check:
    return listings.check(args.workflow, changes(args))


def _run(args: argparse.Namespace) -> Run:
    options: dict[str, Any] = {"on": args.on, "fresh": args.fresh, "address": args.address, "home": args.home}
    return runs.run(args.workflow, changes(args), progress=True, **options)


def _plan(args: argparse.Namespace) -> Plan:
    return plans.plan(args.workflow, changes(args), on=args.on, fresh=args.fresh, home=args.home)


def _runs(args: argparse.Namespace) -> list[Run]:
    _reject(args.follow, "--follow")
    return runs.runs(home=args.home)


def _one_run(args: argparse.Namespace) -> Run:
    _reject(args.follow, "--follow")
    found = runs.runs(home=args.home)
    run = next((run for run in reversed(found) if args.run == "last" or run.id.startswith(args.run)), None)
    if run is None:
        raise ParamsError(f"no run {args.run}", fix="see `raypath runs`")
    return run


def _status(args: argparse.Namespace) -> Status:
    return services.status(home=args.home)


def _models(args: argparse.Namespace) -> list[ModelVersion]:
    return models.models(home=args.home)


def _promote(args: argparse.Namespace) -> Promotion:
    return models.promote(args.registered, args.version, home=args.home)


def _rollback(args: argparse.Namespace) -> Promotion:
    return models.rollback(args.registered, home=args.home)


def _keys_list(args: argparse.Namespace) -> list[Key]:
    return listings.keys(args.home)


def _keys_create(args: argparse.Namespace) -> CreatedKey:
    from raypath.deploy.cli.security.keys import HOLDER, given_certificate, make_key

    limits = {name: getattr(args, name) for name in HOLDER}
    bound = given_certificate(args)
    key, text = make_key(args.home, args.name, args.scopes, args.allowed_models, args.expires, limits, bound)
    return CreatedKey(**listings.key_of(key).model_dump(), key=text)


def _keys_revoke(args: argparse.Namespace) -> Key:
    from raypath.deploy.cli.security.keys import end_key

    return listings.key_of(end_key(args.home, args.which))


def _tls_show(args: argparse.Namespace) -> list[CertificateStatus]:
    return certificates(args.home)


def _usage(args: argparse.Namespace) -> list[UsageRow]:
    from raypath.deploy.cli.security.keys import first_moment

    _reject(args.file, "--csv")
    return listings.usage(args.home, first_moment(args.since), args.by, args.tenant)


COMMANDS: dict[str, tuple[Function, Any]] = {
    "inspect": (_inspect, InspectionReport),
    "list": (_list, list[WorkflowInfo]),
    "show": (_show, WorkflowDetail),
    "check": (_check, Check),
    "run": (_run, Run),
    "run --dry-run": (_plan, Plan),
    "runs": (_runs, list[Run]),
    "runs RUN": (_one_run, Run),
    "status": (_status, Status),
    "models": (_models, list[ModelVersion]),
    "models --verify": (signatures.verify, list[VersionSignature]),
    "models --sign": (signatures.sign, VersionSignature),
    "models --rotate-key": (signatures.rotate_key, RotatedKey),
    "promote": (_promote, Promotion),
    "rollback": (_rollback, Promotion),
    "keys list": (_keys_list, list[Key]),
    "keys create": (_keys_create, CreatedKey),
    "keys revoke": (_keys_revoke, Key),
    "tls show": (_tls_show, list[CertificateStatus]),
    "usage": (_usage, list[UsageRow]),
    "audit list": (audit.records, list[AuditRecord]),
    "audit verify": (audit.verify_log, Verification),
    "backup create": (backup.create, CreatedBackup),
    "backup list": (backup.listed, list[SnapshotInfo]),
    "backup verify": (backup.verify, BackupCheck),
    "comply review": (comply.review, Review),
    "risk": (risk.assess, Assessment),
    "comply state": (comply.state, SignedStatement),
    "encryption init": (encryption.init, EncryptionStatus),
    "encryption status": (encryption.status, EncryptionStatus),
    "encryption rotate": (encryption.rotate, EncryptionStatus),
}
"""Function and type of the result, by command."""
EXIT_STATUS: dict[Function, Callable[[Any], int]] = {
    signatures.verify: signatures.exit_status,
    audit.verify_log: audit.exit_status,
    backup.verify: backup.exit_status,
    _tls_show: tls.exit_status,
}
"""Exit status by the result, of commands that verify."""


def models_of(kinds: Sequence[Any]) -> list[type[BaseModel]]:
    """The models in some of these types."""
    return [kind.__args__[0] if hasattr(kind, "__args__") else kind for kind in kinds]
