"""`raypath models --verify`, `--sign` and `--rotate-key`: signatures of registered models."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from raypath.components.core.errors import ParamsError
from raypath.deploy.api.security import signatures
from raypath.deploy.api.security.signatures import RotatedKey, VersionSignature
from raypath.deploy.console.run_report import console


def verify(args: argparse.Namespace) -> list[VersionSignature]:
    """Verify all versions."""
    return signatures.verify(home=args.home)


def sign(args: argparse.Namespace) -> VersionSignature:
    """Sign the version that --sign names. Raises ParamsError for one that is no number."""
    name, version = args.sign
    if not (version.isascii() and version.isdigit()):
        raise ParamsError(f"--sign {name} got the version {version!r}; wanted an integer", fix="see `raypath models`")
    return signatures.sign(name, int(version), home=args.home)


def rotate_key(args: argparse.Namespace) -> RotatedKey:
    """Make a new key."""
    return signatures.rotate_key(home=args.home)


def exit_status(found: Sequence[VersionSignature]) -> int:
    """Return 1 if a version is not valid."""
    return int(any(each.state != "valid" for each in found))


def show_signatures(found: Sequence[VersionSignature]) -> int:
    """Print a line for each version; returns the exit status, 1 if one is not valid."""
    if not found:
        console.print("no models yet; `raypath run text_classification` registers one")
    for each in found:
        aliases = " ".join(f"@{alias}" for alias in each.aliases)
        detail = f"{each.files} files, key {each.key}" if each.state == "valid" else each.reason
        line = f"{each.name:<20} {each.version:>4}  {aliases:<12} {each.state:<12} {detail}"
        console.print(line, markup=False, soft_wrap=True)
    return exit_status(found)


def show_signed(made: VersionSignature) -> int:
    """Print what was signed."""
    promoted = ", and that it is champion" if "champion" in made.aliases else ""
    print(
        f"{made.name} version {made.version}: {made.files} files, tags and metrics are signed by {made.key}{promoted}"
    )
    return 0


def show_rotated(made: RotatedKey) -> int:
    """Print the new key."""
    print(f"key {made.key} signs from now on; trusted: {', '.join(made.trusted)}")
    return 0
