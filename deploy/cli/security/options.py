"""Options of the commands that protect data, and of `keys`, `usage`, `tls`, `comply` and `card`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypath.components.serving.metering.roles import ROLE_NAMES
from raypath.deploy.cli import commands
from raypath.deploy.cli.parser import add_command


def add_keys_and_usage(group: Any) -> None:
    keys = add_command(group, "keys", None, "manage API keys of endpoints")
    actions = keys.add_subparsers(metavar="ACTION", required=True)
    create = add_command(actions, "create", commands.keys_create, "create a key; it is shown once")
    create.add_argument("name", help="name of the client")
    create.add_argument(
        "--role", choices=ROLE_NAMES, help="what the key may do: read; also use and promote; everything"
    )
    what = "comma-separated: predict, embed, chat, admin; default predict,embed,chat, or those of the role"
    create.add_argument("--scopes", metavar="SCOPES", help=what)
    create.add_argument("--tenant", metavar="NAME", help="tenant whose models the key is for; default none")
    what = "comma-separated names of models, or all; default all"
    create.add_argument("--models", dest="allowed_models", default="all", metavar="NAMES", help=what)
    create.add_argument("--expires", metavar="WHEN", help="30d, or a date such as 2027-01-01; default never")
    what = "bind the key to a client certificate with this common name, or subject such as CN=a,O=b"
    create.add_argument("--certificate", metavar="SUBJECT", help=what)
    what = "make no secret: the certificate alone identifies the client"
    create.add_argument("--no-secret", action="store_true", help=what)
    _add_limits(create)
    add_command(actions, "list", commands.keys_list, "list keys, without their secrets")
    add_command(actions, "revoke", commands.keys_revoke, "revoke a key").add_argument("which", metavar="ID|NAME")
    _add_issuers(actions)
    tenant = add_command(actions, "tenant", commands.keys_tenant, "make a tenant, or change the models that it has")
    tenant.add_argument("name", help="name of the tenant")
    what = "comma-separated names of all models that belong to it; default those that it has"
    tenant.add_argument("--models", dest="allowed_models", metavar="NAMES", help=what)
    add_command(actions, "tenants", commands.keys_tenants, "list the tenants and their models")
    usage = add_command(group, "usage", commands.usage, "show usage of endpoints by key, day, model or tenant")
    usage.add_argument("--since", metavar="DAY", help="first day, such as 2026-11-01, in UTC; default: this month")
    usage.add_argument(
        "--by", choices=["key", "day", "model", "tenant"], default="key", help="group rows by; default key"
    )
    usage.add_argument("--tenant", metavar="NAME", help="only the usage of this tenant")
    usage.add_argument("--csv", dest="file", type=Path, metavar="FILE", help="write CSV to this file")


def add_tls(group: Any) -> None:
    tls = add_command(group, "tls", None, "make and show certificates of endpoints, clients and Ray nodes")
    actions = tls.add_subparsers(metavar="ACTION", required=True)
    what = "make the project's authority and a certificate, or renew it within 30 days of its end"
    init = add_command(actions, "init", commands.protect, what)
    what = "names and addresses of the endpoints or the node; default: this machine's, or those of the last certificate"
    init.add_argument("hosts", nargs="*", metavar="HOST", help=what)
    init.add_argument("--client", default="", metavar="NAME", help="make a certificate for a client of the endpoints")
    what = "make a certificate for a node of a Ray cluster, by an authority of its own, and print Ray's variables"
    init.add_argument("--ray", default="", metavar="NODE", help=what)
    init.add_argument("--days", type=int, default=365, metavar="N", help="days that it is valid; default 365")
    init.add_argument("--renew", action="store_true", help="make a new certificate of the endpoints in any case")
    revoke = add_command(actions, "revoke", commands.protect, "revoke the certificate of a client")
    revoke.add_argument("client", metavar="NAME", help="name of the client")
    what = "list certificates; the exit status is 1 if one ends soon or is invalid"
    add_command(actions, "show", commands.protect, what)


def add_audit(group: Any) -> None:
    audit = add_command(group, "audit", None, "show and verify who promoted, exported, ran or made a key")
    actions = audit.add_subparsers(metavar="ACTION", required=True)
    records = add_command(actions, "list", commands.audit_list, "list the records, the latest last")
    records.add_argument("--since", metavar="DAY", help="first day, such as 2026-11-01, in UTC; default: all")
    what = "only this action, such as model.promote, or a kind of them, such as model"
    records.add_argument("--action", default="", metavar="NAME", help=what)
    what = "only what concerns the models, keys and issuers of this tenant"
    records.add_argument("--tenant", metavar="NAME", help=what)
    verify = add_command(actions, "verify", commands.audit_verify, "check that no record was changed, removed or moved")
    what = "folder or s3://BUCKET/PREFIX with copies of the anchors; default $RAYPATH_AUDIT_ANCHORS"
    verify.add_argument("--anchors", default="", metavar="PLACE", help=what)
    add_command(
        actions, "anchor", commands.audit_anchor, "sign the end of the log now; the first record of a day does so"
    )


def add_backup(group: Any) -> None:
    backup = add_command(group, "backup", None, "store and restore encrypted, incremental backups of the home")
    actions = backup.add_subparsers(metavar="ACTION", required=True)
    what = "write a new key to a file; with --place, change the key of that backup"
    key = add_command(actions, "key", commands.protect, what)
    key.add_argument("file", type=Path, metavar="FILE", help="new file, of mode 0600")
    key.add_argument("--place", default="", metavar="PLACE", help="backup that is read with the new key from now on")
    texts = {
        "create": "store a snapshot; runs and endpoints may continue",
        "list": "list the snapshots",
        "verify": "read and decrypt every block",
        "restore": "restore a snapshot to a new home",
        "prune": "delete old snapshots, and what no other one uses",
    }
    made = {name: add_command(actions, name, commands.protect, text) for name, text in texts.items()}
    for command in made.values():
        command.add_argument("place", metavar="PLACE", help="folder or s3://BUCKET/PREFIX")
    made["restore"].add_argument("--snapshot", default="latest", metavar="ID", help="default: the latest")
    made["prune"].add_argument("--keep", type=int, required=True, metavar="N", help="number of snapshots to keep")
    _add_yes(made["prune"])
    for command in (key, *made.values()):
        command.add_argument("--key", type=Path, metavar="FILE", help="file of the key; default $RAYPATH_BACKUP_KEY")


def add_encryption(group: Any) -> None:
    encryption = add_command(group, "encryption", None, "encrypt the home at rest")
    actions = encryption.add_subparsers(metavar="ACTION", required=True)
    text = "turn encryption on, and encrypt what the home has; again, to resume"
    init = add_command(actions, "init", commands.protect, text)
    add_command(actions, "status", commands.protect, "show the key, and what is encrypted")
    text = "change the master key; no data is rewritten"
    rotate = add_command(actions, "rotate", commands.protect, text)
    what = "file of the master key, made when it does not exist; default $RAYPATH_MASTER_KEY, else a new file"
    init.add_argument("--key", type=Path, metavar="FILE", help=what)
    what = "file of the new master key, made when it does not exist; default $RAYPATH_NEW_MASTER_KEY"
    rotate.add_argument("--key", type=Path, metavar="FILE", help=what)
    for command in (init, rotate):
        what = "command of a key management service that encrypts a key: from its input to its output"
        command.add_argument("--wrap", default="", metavar="COMMAND", help=what)
        command.add_argument("--unwrap", default="", metavar="COMMAND", help="command that decrypts it")
    text = "destroy the key of a subject's rows in the prediction log; `forget` does so as well"
    shred = add_command(actions, "shred", commands.protect, text)
    shred.add_argument("subject", metavar="ID", help="subject, as requests named it in X-Subject-Id")
    _add_yes(shred)
    decrypt = add_command(actions, "decrypt", commands.protect, "decrypt files of the home to a new folder")
    decrypt.add_argument("source", type=Path, metavar="PATH", help="file or folder, such as .raypath/predictions")
    decrypt.add_argument("-o", dest="out", type=Path, required=True, metavar="DIR", help="new folder")


def add_retention(group: Any) -> None:
    retention = add_command(group, "retention", None, "days after which predictions, artifacts and others are deleted")
    actions = retention.add_subparsers(metavar="ACTION", required=True)
    change = add_command(actions, "set", commands.protect, "set days; they are applied after each run")
    what = "such as predictions=30; `never` keeps a kind. Kinds: artifacts, scratch, runs, predictions, usage, logs"
    change.add_argument("days", nargs="+", metavar="KIND=DAYS", help=what)
    add_command(actions, "show", commands.protect, "show the days of each kind")
    now = add_command(actions, "apply", commands.protect, "delete now what is older")
    now.add_argument("--dry-run", action="store_true", help="print what would be deleted; delete nothing")


def add_forget(group: Any) -> None:
    text = "remove the rows of a subject, and the artifacts that were made of them"
    forget = add_command(group, "forget", commands.forget, text)
    forget.add_argument("subject", metavar="ID", help="value of the subject in its column")
    forget.add_argument("--column", default="", metavar="NAME", help="default: those of read.id and read.group")
    what = "versions that were trained on the subject: mark them with a tag, or delete them; default mark"
    forget.add_argument("--models", choices=["mark", "drop"], default="mark", help=what)
    forget.add_argument("--dry-run", action="store_true", help="print what would be removed; remove nothing")
    _add_yes(forget)
    forget.add_argument("--proof", action="store_true", help="show when the subject was forgotten here")


def add_comply(group: Any) -> None:
    comply = add_command(group, "comply", None, "review the project by the GDPR and others, from evidence")
    actions = comply.add_subparsers(metavar="ACTION", required=True)
    review = add_command(actions, "review", commands.protect, "show which requirements are met; no legal advice")
    review.add_argument("--regime", required=True, metavar="NAME", help="gdpr, eu-ai-act, pipl, cn-genai or hipaa")
    what = "answer of the project, such as children=false; can be repeated"
    review.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=what)
    what = "YAML file with the project's answers; default compliance.yaml beside the home"
    review.add_argument("--profile", type=Path, metavar="FILE", help=what)
    review.add_argument("--all", action="store_true", help="show the items that do not apply, too")
    what = "exit with 1 if an item of this severity, or above, is not met"
    review.add_argument("--fail-on", choices=["high", "medium", "any"], help=f"{what}; default never")
    what = "show what changed since the review in this JSON file"
    review.add_argument("--against", type=Path, metavar="FILE", help=what)
    review.add_argument("-o", dest="out", type=Path, metavar="FOLDER", help="write review.html and review.json there")
    what = "sign and record what only a person can know; it expires"
    state = add_command(actions, "state", commands.protect, what)
    state.add_argument("topic", metavar="TOPIC", help="such as dpia; see `raypath comply topics`")
    state.add_argument("--text", required=True, help="the statement")
    state.add_argument("--by", required=True, metavar="NAME", help="person who states it")
    state.add_argument("--valid", default="365d", metavar="DAYS", help="days until it expires; default 365d")
    what = "file that it is about; when the file changes, the statement has to be made again"
    state.add_argument("--document", type=Path, metavar="FILE", help=what)
    add_command(actions, "topics", commands.protect, "list the topics of statements, and what each has to say")


def add_risk(group: Any) -> None:
    what = "show what may go wrong: technical, business, legal, data and team, from evidence"
    risk = add_command(group, "risk", commands.risk, what)
    what = "answer of the project, such as machine_hour=0.40 or people=2; can be repeated"
    risk.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=what)
    what = "YAML file with the answers; default risk.yaml beside the home"
    risk.add_argument("--answers", type=Path, metavar="FILE", help=what)
    what = "exit with 1 if a risk has this score, 1 to 9, or more; default never"
    risk.add_argument("--fail-on", type=int, metavar="SCORE", help=what)
    risk.add_argument("-o", dest="out", type=Path, metavar="FOLDER", help="write risk.html and risk.json there")


def add_card(group: Any) -> None:
    card = add_command(group, "card", commands.card, "write the cards of a registered model and of its data")
    card.add_argument("model", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    card.add_argument("out", type=Path, metavar="DIR", help="a new or empty folder")
    card.add_argument("--license", default="", metavar="SPDX", help="license of the data, such as CC-BY-4.0")
    card.add_argument(
        "--about", default="", metavar="TEXT", help="where the data comes from, and what it may be used for"
    )
    card.add_argument("--contact", default="", metavar="TEXT", help="whom to ask about the data")


def _add_yes(command: Any) -> None:
    command.add_argument("--yes", action="store_true", help="do not ask before anything is removed")


def _add_limits(create: Any) -> None:
    for flag, field, text in (
        ("--rate", "requests_per_minute", "requests a minute"),
        ("--rate-tokens", "tokens_per_minute", "tokens a minute, of requests and responses"),
        ("--quota-requests", "quota_requests", "requests a month"),
        ("--quota-tokens", "quota_tokens", "tokens a month"),
        ("--price-request", "price_per_request", "price of a request"),
        ("--price-tokens", "price_per_1k_tokens", "price of 1,000 tokens"),
        ("--price-generated", "price_per_1k_generated", "price of 1,000 tokens that a language model generates"),
        ("--price-cached", "price_per_1k_cached", "price of 1,000 tokens of prompts from the prefix cache"),
    ):
        kind = float if "price" in flag else int
        create.add_argument(flag, dest=field, type=kind, metavar="N", help=f"{text}; default none")


def _add_issuers(actions: Any) -> None:
    text = "accept tokens of an OpenID Connect issuer beside API keys"
    trust = add_command(actions, "trust", commands.keys_trust, text)
    trust.add_argument("issuer", metavar="URL", help="URL of the issuer; its public keys are looked up there")
    trust.add_argument("--audience", required=True, metavar="NAME", help="audience that tokens must be for")
    what = "claim with the scopes, or with roles; default scope"
    trust.add_argument("--claim", default="scope", metavar="NAME", help=what)
    what = "role of a value, such as team=operator, or its scopes, such as analyst=predict,embed; can be repeated. "
    what += "Without it the claim has scopes"
    trust.add_argument("--role", dest="roles", action="append", default=[], metavar="VALUE=ROLE", help=what)
    trust.add_argument("--tenant", metavar="NAME", help="tenant that all users of the issuer belong to; default none")
    trust.add_argument("--tenant-claim", metavar="NAME", help="claim that names the tenant of a user")
    what = "comma-separated names of models, or all; default all"
    trust.add_argument("--models", dest="allowed_models", default="all", metavar="NAMES", help=what)
    _add_limits(trust)
    distrust = add_command(actions, "distrust", commands.keys_distrust, "accept no more tokens of an issuer")
    distrust.add_argument("issuer", metavar="URL")
    add_command(actions, "issuers", commands.keys_issuers, "list the issuers whose tokens are accepted")
