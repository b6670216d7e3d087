"""What the registry is told of a version that a replica did not take, and how it loses its alias again."""

from __future__ import annotations

from typing import Any

from raypath.components.core.errors import UserError
from raypath.components.registry import aliases, tags
from raypath.components.registry import client as registry
from raypath.components.registry.client import (
    RegisteredVersion,
    _aliases,
    _known,
    _registered,
    get_version,
    mlflow_client,
)
from raypath.components.registry.tags import CHALLENGER, CHAMPION
from raypath.components.tracking.tags import PREVIOUS_CHAMPION, REJECTED


def demote(uri: str, name: str, refused: int, before: int = 0) -> int:
    """Give the alias champion back where a refused version still holds it; returns the version that holds it then.

    before: whom to give it to, 0 for the version that held it before the refused one; without one it stays. Who moved
    the alias meanwhile is left alone (MLflow cannot compare and set: what is left is the time of a request).
    """
    with registry.mlflow_client(uri) as client:
        now = aliases.champion(client, name)
        if now is None or now.version != refused:
            return now.version if now else 0
        before = before or int(now.tags.get(PREVIOUS_CHAMPION) or 0)
        if not before or before == refused:
            return refused
        client.set_registered_model_alias(name, tags.CHAMPION, str(registry.get_version(client, name, before).version))
        return before


def rejection_reason(uri: str, name: str, version: int) -> str:
    """Why a replica did not take a version, "" for one that none refused since it became the champion."""
    with registry.mlflow_client(uri) as client:
        return str(registry.get_version(client, name, version).tags.get(REJECTED, ""))


def previous_champion(uri: str, name: str, version: int) -> int:
    """The version that held the alias champion before this one, 0 for none."""
    with registry.mlflow_client(uri) as client:
        return int(registry.get_version(client, name, version).tags.get(PREVIOUS_CHAMPION) or 0)


def set_tag(uri: str, name: str, version: int, key: str, value: str) -> None:
    """Note something with a version. Raises Unavailable."""
    with registry.mlflow_client(uri) as client:
        client.set_model_version_tag(name, str(version), key, value[:5000])


def champion(client: Any, name: str) -> RegisteredVersion | None:
    """The version that holds the alias champion, None without one."""
    number = _aliases(client, name).get(CHAMPION)
    return None if number is None else _registered(get_version(client, name, number))


def set_champion(client: Any, name: str, version: int) -> int:
    """Give a version the alias champion. Returns the version that held it, 0 when none did."""
    aliases = _aliases(client, name)
    before = aliases.get(CHAMPION, 0)
    if before == version:
        return before
    # First the way back, then the step: a kill between the two loses nothing.
    client.set_model_version_tag(name, str(version), PREVIOUS_CHAMPION, str(before or ""))
    if REJECTED in get_version(client, name, version).tags:
        client.delete_model_version_tag(name, str(version), REJECTED)
    client.set_registered_model_alias(name, CHAMPION, str(version))
    if aliases.get(CHALLENGER) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
    return before


def promote(uri: str, name: str, version: int) -> int:
    """Make a version the champion by hand. Returns the version it takes over from, 0 when there was none."""
    with mlflow_client(uri) as client:
        get_version(client, name, version)
        return set_champion(client, name, version)


def rollback(uri: str, name: str) -> tuple[int, int]:
    """Give the alias champion back to the version that held it before; returns that version and the one that held it.

    Raises UserError.
    """
    with mlflow_client(uri) as client:
        _known(client, name)
        now = champion(client, name)
        if now is None:
            raise UserError(f"model {name} has no champion", fix=f"raypath promote {name} VERSION")
        before = now.tags.get(PREVIOUS_CHAMPION, "")
        if not before:
            raise UserError(
                f"version {now.version} of {name} is the first champion; there is none before it",
                fix=f"raypath promote {name} VERSION",
            )
        client.set_registered_model_alias(name, CHAMPION, str(get_version(client, name, int(before)).version))
        return int(before), now.version


def alias_target(uri: str, name: str, alias: str) -> tuple[int, str] | None:
    """Version and source behind an alias, None where nothing holds it."""
    with mlflow_client(uri) as client:
        number = _aliases(client, name).get(alias)
        return None if number is None else (number, str(get_version(client, name, number).source))
