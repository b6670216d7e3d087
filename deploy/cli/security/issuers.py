"""Commands `keys trust`, `keys distrust` and `keys issuers`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from raypath.components.core.errors import ParamsError
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.metering.issuers import IssuerStore
from raypath.components.serving.metering.roles import ROLE_NAMES, Role, Scope
from raypath.deploy.cli.security.keys import (
    ALL,
    LIMITS,
    folder,
    given_limits,
    parse_models,
    parse_scopes,
    print_table,
)
from raypath.deploy.console.run_report import console
from raypath.deploy.store.audit.log import audited


def trust(args: argparse.Namespace) -> None:
    """Trust an issuer and print what its users may do. Raises ParamsError, Unavailable."""
    roles = dict(map(_role, args.roles))
    limits = given_limits({name: getattr(args, name) for name in ("tenant", "tenant_claim", *LIMITS)})
    models = parse_models(args.allowed_models)
    if args.tenant and args.tenant not in {each.name for each in KeyStore(folder(args.home)).tenants()}:
        raise ParamsError(f"there is no tenant {args.tenant}", fix=f"make it: raypath keys tenant {args.tenant}")
    detail = {"audience": args.audience, "claim": args.claim, "roles": roles, "models": args.allowed_models, **limits}
    with audited(args.home, "issuer.trust", args.issuer, detail):
        store = IssuerStore(folder(args.home))
        made = store.add(args.issuer, args.audience, claim=args.claim, roles=roles, models=models, **limits)
    what = f"roles {', '.join(roles)}" if roles else "scopes"
    print(f"tokens of {made.issuer} for {made.audience} are accepted, with the {what} in their claim {made.claim}")


def distrust(home: Path, issuer: str) -> None:
    """Trust an issuer no longer. Raises UserError."""
    with audited(home, "issuer.distrust", issuer):
        IssuerStore(folder(home)).remove(issuer)
    print(f"tokens of {issuer} are rejected; a running endpoint does so within a second or two")


def show_issuers(home: Path) -> None:
    """Print the issuers."""
    lines = [
        (
            *(each.issuer, each.audience, each.claim),
            " ".join(f"{role}={_shown(given)}" for role, given in each.roles.items()) or "-",
            each.tenant or (f"claim {each.tenant_claim}" if each.tenant_claim else "-"),
            ALL if each.models is None else ",".join(each.models),
        )
        for each in IssuerStore(folder(home)).list()
    ]
    if not lines:
        console.print("no issuers yet; `raypath keys trust URL --audience NAME` adds one")
        return
    print_table(("issuer", "audience", "claim", "roles", "tenant", "models"), lines)


def _role(text: str) -> tuple[str, list[Scope] | Role]:
    name, _, given = text.partition("=")
    if not name or not given:
        raise ParamsError(f"--role got {text!r}", fix="give VALUE=ROLE, such as team=operator or analyst=predict,embed")
    # `admin` is the role here: no route needs the scope of that name.
    return name, next((role for role in ROLE_NAMES if role == given), None) or parse_scopes(given)


def _shown(given: Sequence[Scope] | Role) -> str:
    return given if isinstance(given, str) else ",".join(given)
