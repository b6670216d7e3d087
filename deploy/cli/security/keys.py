"""Commands `keys` and `usage`: API keys of endpoints and usage reports."""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from raypath.components.core.errors import ParamsError
from raypath.components.data.columns.spreadsheet import safe_cell
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.metering.holder import Key
from raypath.components.serving.metering.roles import SCOPES, Scope, role_scopes
from raypath.components.serving.metering.usage import By, UsageRow, read_usage
from raypath.deploy.console.output_file import write_file
from raypath.deploy.console.run_report import console
from raypath.deploy.store.audit.log import audited

PRICES = ("price_per_request", "price_per_1k_tokens", "price_per_1k_generated", "price_per_1k_cached")
LIMITS = ("requests_per_minute", "tokens_per_minute", "quota_requests", "quota_tokens", *PRICES)
"""Optional limits and prices of a key."""
HOLDER = ("role", "tenant", *LIMITS)
"""Optional fields of a key."""
COUNTS = {
    "requests_per_minute": "--rate",
    "tokens_per_minute": "--rate-tokens",
    "quota_requests": "--quota-requests",
    "quota_tokens": "--quota-tokens",
}
"""Limits, with their options."""
ALL = "all"
"""Text for every model."""
_COUNTED = ("requests", "rejected", "errors", "tokens", "generated_tokens", "cached_tokens", "compute_seconds", "price")


def folder(home: Path) -> Path:
    """Return the folder of API keys and usage records."""
    return home / "access"


def create_key(
    home: Path,
    name: str,
    scopes: str | None,
    models: str,
    expires: str | None,
    limits: Mapping[str, Any],
    bound: Mapping[str, Any],
) -> None:
    """Create a key and print it, alone on standard output. Raises ParamsError."""
    key, text = make_key(home, name, scopes, models, expires, limits, bound)
    until = f", until {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires else ""
    if text:
        print(text)
    kept = "keep it now, it cannot be shown again" if text else f"the certificate of {key.certificate} stands for it"
    print(f"key {key.id} for {key.name}{until}; {kept}", file=sys.stderr)


def given_certificate(args: argparse.Namespace) -> dict[str, Any]:
    """Return the certificate that a key is bound to, and if it has a secret beside. Raises ParamsError."""
    if args.no_secret and not args.certificate:
        raise ParamsError("a key without a secret needs a certificate", fix="give --certificate SUBJECT too")
    return {"certificate": args.certificate, "secret": not args.no_secret} if args.certificate else {}


def make_key(
    home: Path,
    name: str,
    scopes: str | None,
    models: str,
    expires: str | None,
    limits: Mapping[str, Any],
    bound: Mapping[str, Any],
) -> tuple[Key, str]:
    """Make a key from the text of the options; returns it and its text. Raises ParamsError."""
    end = _moment(expires, ahead=True) if expires else None
    given = given_limits(limits)
    named = role_scopes(given.get("role")) if scopes is None else parse_scopes(scopes)
    allowed = parse_models(models)
    detail = {"scopes": list(named), "models": models, "expires": end.isoformat() if end else "never", **given, **bound}
    with audited(home, "key.create", name, detail) as found:
        made, text = KeyStore(folder(home)).create(name, named, models=allowed, expires=end, **given, **bound)
        found["id"] = made.id
    return made, text


def given_limits(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits that were given. Raises ParamsError for 0, which would be no limit."""
    given = {field: value for field, value in limits.items() if value is not None}
    for field in (field for field, value in given.items() if value == 0 and field in COUNTS):
        raise ParamsError(f"{COUNTS[field]} got 0, which would be no limit", fix="give at least 1, or leave it out")
    return given


def show_keys(home: Path) -> None:
    """Print all keys with their limits."""
    now = datetime.now(UTC).timestamp()
    lines = [
        (
            *(key.id, key.name, key.status(now), ",".join(key.scopes) or "-"),
            *(ALL if key.models is None else ",".join(key.models), f"{key.created:%Y-%m-%d}"),
            *(f"{key.expires:%Y-%m-%d}" if key.expires else "never", key.role or "-", key.tenant or "-"),
            *(f"{n:,}" if (n := getattr(key, name)) else "-" for name in COUNTS),
            *(f"{price:g}" if (price := getattr(key, name)) else "-" for name in PRICES),
        )
        for key in KeyStore(folder(home)).list()
    ]
    if not lines:
        console.print("no keys yet; `raypath keys create NAME` makes one")
        return
    limits = ["a minute", "tokens a minute", "requests a month", "tokens a month"]
    limits += ["a request", "1,000 tokens", "generated", "cached"]
    print_table(("id", "name", "status", "for", "models", "created", "expires", "role", "tenant", *limits), lines)


def revoke_key(home: Path, which: str) -> None:
    """Revoke a key by its id or name, and print that. Raises UserError."""
    key = end_key(home, which)
    print(f"key {key.id} of {key.name} is revoked; a running endpoint rejects it within a second or two")


def end_key(home: Path, which: str) -> Key:
    """Revoke a key by its id or name. Raises UserError."""
    with audited(home, "key.revoke", which) as detail:
        key = KeyStore(folder(home)).revoke(which)
        detail.update(id=key.id, name=key.name, **({"tenant": key.tenant} if key.tenant else {}))
    return key


def show_usage(home: Path, since: str | None, by: By, file: Path | None, tenant: str | None = None) -> None:
    """Print a usage report, or write it as CSV. tenant: only its usage. Raises ParamsError."""
    begin = first_moment(since)
    rows = read_usage(folder(home) / "usage", begin, by=by, tenant=tenant)
    if file is not None:
        _write_csv(file, rows, by)
        print(f"{len(rows)} rows in {file}")
    elif not rows:
        console.print(f"nothing was used since {begin:%Y-%m-%d}")
    else:
        print_table(_header(by), [_shown(row, by) for row in rows])


def first_moment(since: str | None) -> datetime:
    """The date or time of `--since`, else the beginning of this month. Raises ParamsError."""
    now = datetime.now(UTC)
    return _moment(since) if since else now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _header(by: By) -> tuple[str, ...]:
    return (by, *(("name",) if by == "key" else ()), *_COUNTED)


def _cells(row: UsageRow, by: By) -> list[Any]:
    return [row.what, *([row.name] if by == "key" else []), *(getattr(row.sums, name) for name in _COUNTED)]


def _shown(row: UsageRow, by: By) -> list[str]:
    what, *cells = _cells(row, by)
    nobody = {"key": "(no key)", "tenant": "(no tenant)"}.get(by, "-")
    return [
        what or nobody,
        *(f"{c:,.4f}" if isinstance(c, float) else c if isinstance(c, str) else f"{c:,}" for c in cells),
    ]


def _write_csv(file: Path, rows: Sequence[UsageRow], by: By) -> None:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(_header(by))
    lines.writerows([safe_cell(cell) for cell in _cells(row, by)] for row in rows)
    write_file(file, text.getvalue())


def print_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    for n, line in enumerate([header, *lines]):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        console.print(text.rstrip(), markup=False, style="bold" if n == 0 else None)


def parse_scopes(text: str) -> list[Scope]:
    asked = [part.strip() for part in text.split(",") if part.strip()]
    if not asked or set(asked) - set(SCOPES):
        raise ParamsError(f"--scopes got {text!r}", fix=f"give some of {','.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in asked]


def parse_models(text: str) -> tuple[str, ...] | None:
    if text == ALL:
        return None
    asked = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not all(asked):
        raise ParamsError(f"--models got {text!r}", fix="give names of models such as a,b, or all")
    return asked


def _moment(text: str, ahead: bool = False) -> datetime:
    """Parse `30d` from now, or a date or time, in UTC unless it has a zone."""
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        if ahead and (days := re.fullmatch(r"(\d{1,5})d", text)):
            found = now + timedelta(days=int(days[1]))
        else:
            found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        wanted = "30d or 2027-01-01" if ahead else "a date such as 2026-11-01"
        raise ParamsError(f"{text!r} is not a date", fix=f"give {wanted}") from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if ahead and found <= now:
        raise ParamsError(f"--expires {text} has passed", fix="give a day to come, or 30d")
    return found
