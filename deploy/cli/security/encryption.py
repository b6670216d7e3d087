"""Commands `encryption ...`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from raypath.deploy.api.security import encryption as api
from raypath.deploy.api.security.encryption import EncryptionStatus
from raypath.deploy.cli.security.backup import file_progress
from raypath.deploy.console.confirm import confirm
from raypath.deploy.console.run_report import console
from raypath.deploy.store.store import SHARED


def init(args: argparse.Namespace) -> EncryptionStatus:
    """Turn encryption on, and encrypt what the home has."""
    with file_progress("encrypting") as progress:
        return api.init_encryption(key=args.key, wrap=args.wrap, unwrap=args.unwrap, home=args.home, progress=progress)


def show_init(args: argparse.Namespace) -> None:
    """Turn encryption on and print what to do with the key."""
    found = init(args)
    _print(found)
    if found.file:
        console.print(
            f"Keep a copy of {found.file} away from this machine: without it nothing can be read.", markup=False
        )
    if "://" in os.environ.get(SHARED, ""):
        console.print(f"What is in {os.environ[SHARED]} already stays in plaintext; take a new folder.", markup=False)
    console.print("Earlier copies in backups and in the user's cache of models are not encrypted.", markup=False)


def status(args: argparse.Namespace) -> EncryptionStatus:
    """Return the state of a home."""
    return api.encryption_status(home=args.home)


def show_status(args: argparse.Namespace) -> None:
    """Print the state of a home."""
    _print(status(args))


def rotate(args: argparse.Namespace) -> EncryptionStatus:
    """Change the master key."""
    return api.rotate_encryption(key=args.key, wrap=args.wrap, unwrap=args.unwrap, home=args.home)


def show_rotated(args: argparse.Namespace) -> None:
    """Change the master key and print which is needed from now on."""
    found = rotate(args)
    print(f"{found.home} needs {_key(found)} from now on; no data was rewritten")
    console.print("Backups from before need the key before.")


def decrypt(args: argparse.Namespace) -> None:
    """Decrypt files to a new folder."""
    count = api.decrypt_files(args.source, args.out, home=args.home)
    print(f"{count} files decrypted to {args.out}")


def shred(args: argparse.Namespace) -> None:
    """Ask, and destroy the key of a subject."""
    confirm("Make the rows of this subject in the prediction log unreadable forever?", args.yes)
    if not api.shred_subject(args.subject, home=args.home):
        console.print("this subject has no rows in the prediction log")
        return
    print("the key of this subject is destroyed; its rows are unreadable, also in copies and backups")


def _print(found: EncryptionStatus) -> None:
    if not found.encrypted:
        print(f"{found.home} is not encrypted; `raypath encryption init` turns it on")
        return
    print(f"{found.home} is encrypted with {_key(found)}")
    for kind in sorted({*found.sealed, *found.plain}):
        plain = f", {found.plain[kind]:,} in plaintext" if kind in found.plain else ""
        print(f"{kind:<12} {found.sealed.get(kind, 0):>6,} files encrypted{plain}")
    if found.plain:
        console.print("`raypath encryption init` encrypts the rest")


def _key(found: EncryptionStatus) -> str:
    if found.master == "command":
        return "a key of a key management service"
    return f"master key {found.key} {'in ' + found.file if found.file else 'of $RAYPATH_MASTER_KEY'}"


ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "encryption init": show_init,
    "encryption status": show_status,
    "encryption rotate": show_rotated,
    "encryption decrypt": decrypt,
    "encryption shred": shred,
}
"""Function of each command."""
