"""Commands `tls ...`: certificates of the endpoints, their clients and Ray's nodes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from raypath.components.core.errors import ParamsError
from raypath.deploy.api.results import CertificateStatus
from raypath.deploy.api.security.certificates import certificates
from raypath.deploy.cli.security.keys import print_table
from raypath.deploy.console.run_report import console
from raypath.deploy.local.tls import project
from raypath.deploy.local.tls.authority import AUTHORITY_DAYS
from raypath.deploy.local.tls.project import ProjectFiles
from raypath.deploy.store.audit.log import audited


def init(args: argparse.Namespace) -> None:
    """Make or renew certificates and print their files. Raises UserError."""
    if not 1 <= args.days <= AUTHORITY_DAYS:
        raise ParamsError(f"--days got {args.days}", fix=f"give 1 to {AUTHORITY_DAYS}")
    if args.client and args.ray:
        raise ParamsError("--client and --ray make different certificates", fix="give one of them")
    if args.client and args.hosts:
        raise ParamsError(f"a client's certificate is for no host, and got {args.hosts[0]}", fix="leave the hosts out")
    what = f"client {args.client}" if args.client else f"node {args.ray}" if args.ray else "server"
    with audited(args.home, "tls.init", what, {"hosts": args.hosts, "days": args.days}):
        if args.client:
            print(f"certificate and key of {args.client}: {project.make_client(args.home, args.client, args.days)}")
        elif args.ray:
            project.make_node(args.home, args.ray, args.hosts, args.days)
            for variable, value in project.node_environment(args.home, args.ray).items():
                print(f"export {variable}={value}")
        else:
            new = project.ensure_server(args.home, args.hosts, days=args.days, renew=args.renew)
            files = ProjectFiles(args.home)
            print(f"certificate and key of the endpoints: {files.server}{'' if new else ', as before'}")
            print(f"clients verify it with {files.authority}, as `curl --cacert FILE` does")


def revoke(args: argparse.Namespace) -> None:
    """Revoke the certificate of a client. Raises UserError."""
    with audited(args.home, "tls.revoke", args.client):
        count = project.revoke_client(args.home, args.client)
    which = f"{count} certificates of {args.client} are" if count > 1 else f"the certificate of {args.client} is"
    print(f"{which} revoked; an endpoint rejects what is revoked within two seconds")


def show(args: argparse.Namespace) -> int:
    """Print certificates and their expiry; returns the exit status."""
    return show_certificates(certificates(args.home))


def exit_status(found: Sequence[CertificateStatus]) -> int:
    """Return 1 if a certificate is not valid or ends soon."""
    return int(any(each.state != "valid" for each in found))


def show_certificates(found: Sequence[CertificateStatus]) -> int:
    """Print a line for each certificate, then what is wrong; returns the exit status."""
    if not found:
        console.print("no certificates yet; `raypath tls init HOST` makes them")
        return 0
    lines = [
        (
            *(each.name, each.state, f"{each.expires:%Y-%m-%d}" if each.expires else "-"),
            *("-" if each.days_left is None else str(each.days_left), ",".join(each.hosts) or "-", each.file),
        )
        for each in found
    ]
    print_table(("certificate", "state", "ends", "days", "for", "file"), lines)
    for each in found:
        if each.message:
            console.print(f"{each.name}: {each.message}", markup=False, soft_wrap=True)
    return exit_status(found)


ACTIONS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "tls init": init,
    "tls revoke": revoke,
    "tls show": show,
}
"""Function of each command."""
