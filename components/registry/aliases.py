"""Aliases of registered models: promote, demote and roll back the champion, and record rejected versions."""

from __future__ import annotations

from typing import Any

from raypath.components.core.errors import UserError
from raypath.components.registry.client import (
    RegisteredVersion,
    check_name,
    get_version,
    mlflow_client,
    read_aliases,
    registered,
)
from raypath.components.registry.tags import CHALLENGER, CHAMPION
from raypath.components.tracking.tags import PREVIOUS_CHAMPION, REJECTED


def champion(client: Any, name: str) -> RegisteredVersion | None:
    """Return the version with the alias champion, None without one."""
    number = read_aliases(client, name).get(CHAMPION)
    return None if number is None else registered(get_version(client, name, number))


def alias_target(uri: str, name: str, alias: str) -> tuple[int, str] | None:
    """Return version and source URI behind an alias, None without one."""
    with mlflow_client(uri) as client:
        number = read_aliases(client, name).get(alias)
        return None if number is None else (number, str(get_version(client, name, number).source))


def set_champion(client: Any, name: str, version: int) -> int:
    """Give a version the alias champion. Returns the previous champion, 0 if there was none."""
    aliases = read_aliases(client, name)
    before = aliases.get(CHAMPION, 0)
    if before == version:
        return before
    # The way back is recorded before the alias moves: a crash between the two calls loses nothing.
    client.set_model_version_tag(name, str(version), PREVIOUS_CHAMPION, str(before or ""))
    if REJECTED in get_version(client, name, version).tags:
        client.delete_model_version_tag(name, str(version), REJECTED)
    client.set_registered_model_alias(name, CHAMPION, str(version))
    if aliases.get(CHALLENGER) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
    return before


def promote(uri: str, name: str, version: int) -> int:
    """Make a version the champion. Returns the previous champion, 0 if there was none."""
    with mlflow_client(uri) as client:
        get_version(client, name, version)
        return set_champion(client, name, version)


def rollback(uri: str, name: str) -> tuple[int, int]:
    """Return the alias champion to the previous champion. Returns that version and the one it replaces.

    Raises UserError.
    """
    with mlflow_client(uri) as client:
        check_name(client, name)
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


def demote(uri: str, name: str, rejected: int, before: int = 0) -> int:
    """Take the alias champion from a rejected version. Returns the champion afterwards.

    An alias that was moved meanwhile is left alone. MLflow has no compare-and-set, so a race within the time of one
    request remains.

    Args:
        before: The version that receives the alias; 0 takes the previous champion. Without one the alias stays.
    """
    with mlflow_client(uri) as client:
        now = champion(client, name)
        if now is None or now.version != rejected:
            return now.version if now else 0
        before = before or int(now.tags.get(PREVIOUS_CHAMPION) or 0)
        if not before or before == rejected:
            return rejected
        client.set_registered_model_alias(name, CHAMPION, str(get_version(client, name, before).version))
        return before


def rejection_reason(uri: str, name: str, version: int) -> str:
    """Return why a replica rejected a version, "" if none has since the version became the champion."""
    with mlflow_client(uri) as client:
        return str(get_version(client, name, version).tags.get(REJECTED, ""))


def set_tag(uri: str, name: str, version: int, key: str, value: str) -> None:
    """Set a tag of a version. Raises Unavailable."""
    with mlflow_client(uri) as client:
        client.set_model_version_tag(name, str(version), key, value[:5000])
