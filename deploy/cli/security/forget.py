"""Command `forget`: remove the rows of a subject, and what was made of them."""

from __future__ import annotations

import argparse

from raypath.components.core.errors import PlatformError, UserError
from raypath.components.data.wording import plural
from raypath.components.encryption.subjects import destroy_key, has_key
from raypath.components.encryption.vault import is_encrypted, vault_for
from raypath.deploy.console.confirm import confirm
from raypath.deploy.console.run_report import console
from raypath.deploy.store.audit.log import audited
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.forgetting.removal import StepRecord, affected, read_records, remove, subject_hash
from raypath.deploy.store.forgetting.search import COLUMNS, FoundRows, find_rows


def forget(args: argparse.Namespace) -> None:
    """Find a subject, print where it is, ask, and remove it. --dry-run ends before. Raises UserError, DataError."""
    if not args.subject:
        raise UserError("the subject is empty", fix="give the value of its column, such as a customer number")
    if not args.home.is_dir():
        raise UserError(f"there is no home {args.home}", fix="set RAYPATH_HOME, or run from the folder of .raypath")
    store = open_store(args.home)
    columns = [args.column] if args.column else COLUMNS
    rows = find_rows(store, args.subject, columns)
    records = affected(read_records(store), {each.artifact for each in rows})
    _show(rows, records)
    vault = vault_for(args.home) if is_encrypted(args.home) else None
    logged = vault is not None and has_key(vault, args.subject)
    if logged:
        print("prediction log: rows of this subject, under a key of its own")
    if args.dry_run or not (rows or logged):
        return
    count = len(_versions(records)) if args.models == "drop" else 0
    dropped = f" and {plural(count, 'version')}" if count else ""
    confirm(f"Remove the rows of this subject, {plural(len(records), 'step')} made of them{dropped}?", args.yes)
    detail = {
        "rows": sum(each.rows for each in rows),
        "artifacts": sorted({each.artifact[:16] for each in rows}),
        "steps": sorted({each.step for each in records}),
        "versions": sorted(f"{name}/{number}" for name, number in _versions(records)),
        "models": args.models,
        "key_destroyed": logged,
    }
    with audited(args.home, "subject.forget", subject_hash(args.home, args.subject), detail):
        # Versions first: a version in service ends the command before anything is removed.
        _handle_versions(args, records)
        count = remove(store, records, rows)
        if vault is not None and logged:
            destroy_key(vault, args.subject)
        if find_rows(store, args.subject, columns):
            fix = "wait until no run is in progress, then run the same command again"
            raise PlatformError("rows of this subject were written meanwhile", fix=fix)
    if logged:
        print("the key of its rows in the prediction log is destroyed, also for copies and backups")
    print(f"{plural(count, 'artifact')} removed; remove the subject from the source of the data before the next run")
    if "://" in store.address:
        text = f"Other machines may have copies of what was in {store.address}: run the same command on each."
        console.print(text, markup=False, soft_wrap=True)


def proof(args: argparse.Namespace) -> None:
    """Print the records of the audit log on a subject."""
    from raypath.deploy.store.audit.log import read

    name = subject_hash(args.home, args.subject)
    found = [each for each in read(args.home) if (each.action, each.target) == ("subject.forget", name)]
    for each in found:
        rows, versions = each.detail.get("rows"), ", ".join(each.detail.get("versions", [])) or "no versions"
        print(f"record {each.n}, {each.time:%Y-%m-%d %H:%M} UTC: {rows} rows, {versions}, {each.outcome}")
    if not found:
        console.print("this subject was not forgotten here")


def _show(rows: list[FoundRows], records: list[StepRecord]) -> None:
    if not rows:
        console.print("no rows of this subject")
        return
    for each in rows:
        print(f"{each.artifact[:16]}  {each.file}  {plural(each.rows, 'row')}")
    print(f"made of them: {', '.join(sorted({each.step for each in records})) or 'nothing'}")
    for name, number in sorted(_versions(records)):
        print(f"trained on them: {name} version {number}")


def _versions(records: list[StepRecord]) -> set[tuple[str, int]]:
    return {each.version for each in records if each.version is not None}


def _handle_versions(args: argparse.Namespace, records: list[StepRecord]) -> None:
    """Mark or delete the versions that were trained on the subject. Raises DataError before one in use is deleted."""
    from raypath.components.registry.cache import cache_folder
    from raypath.components.registry.client import list_registered, mlflow_client
    from raypath.components.registry.publish import check_unused, withdraw
    from raypath.components.tracking.tags import FORGOTTEN
    from raypath.deploy.api.project import registry_uri

    wanted = _versions(records)
    if not wanted:
        return
    with mlflow_client(registry_uri(args.home)) as client:
        found = [each for each in list_registered(client) if (each.name, each.version) in wanted]
        if args.models == "drop":
            for each in found:
                check_unused(each)
            for each in found:
                withdraw(client, each, args.home / "mlflow" / "artifacts", cache_folder(args.home / "signing"))
            return
        for each in found:
            count = int(each.tags.get(FORGOTTEN, "0")) + 1
            client.set_model_version_tag(each.name, str(each.version), FORGOTTEN, str(count))
