"""Aliases of registered models: promote, demote and roll back the champion, and record rejected versions."""

from __future__ import annotations

from pathlib import Path
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
from raypath.components.registry.signing.check import check_version, is_promoted
from raypath.components.registry.signing.keys import signing_key, trusted_keys
from raypath.components.registry.signing.records import sign_promotion
from raypath.components.registry.tags import CHALLENGER, CHAMPION
from raypath.components.tracking.tags import PREVIOUS_CHAMPION, PROMOTION, REASON, REJECTED


def champion(client: Any, name: str) -> RegisteredVersion | None:
    """Return the version with the alias champion, None without one."""
    number = read_aliases(client, name).get(CHAMPION)
    return None if number is None else registered(get_version(client, name, number))


def trusted_champion(client: Any, name: str, signing: Path | None) -> RegisteredVersion | None:
    """Return the version with the alias champion. Raises DataError unless it and its promotion are signed."""
    found = champion(client, name)
    if found is not None:
        check_version(name, found.version, found.tags, trusted_keys(signing), promoted=True)
    return found


def alias_target(uri: str, name: str, alias: str) -> tuple[int, str] | None:
    """Return version and source URI behind an alias, None without one."""
    with mlflow_client(uri) as client:
        number = read_aliases(client, name).get(alias)
        return None if number is None else (number, str(get_version(client, name, number).source))


def set_champion(client: Any, name: str, version: int, signing: Path | None = None) -> int:
    """Give a version the alias champion, with a signed promotion. Returns the previous champion, 0 if there was none.

    signing: Folder of the signing key. Raises DataError for a version that is not signed, UserError without a key.
    """
    aliases, keys = read_aliases(client, name), trusted_keys(signing)
    before = aliases.get(CHAMPION, 0)
    tags = get_version(client, name, version).tags
    check_version(name, version, tags, keys)
    if before == version and is_promoted(name, version, tags, keys):
        return before
    previous = 0 if before == version else before
    # The way back is recorded before the alias moves: a crash between the two calls loses nothing.
    client.set_model_version_tag(name, str(version), PREVIOUS_CHAMPION, str(previous or ""))
    record = sign_promotion(signing_key(signing), name, version, previous, tags.get(REASON, ""))
    client.set_model_version_tag(name, str(version), PROMOTION, record)
    if REJECTED in tags:
        client.delete_model_version_tag(name, str(version), REJECTED)
    client.set_registered_model_alias(name, CHAMPION, str(version))
    if aliases.get(CHALLENGER) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
    return before


def promote(uri: str, name: str, version: int, signing: Path | None = None) -> int:
    """Make a version the champion. Returns the previous champion, 0 if there was none. Raises what `set_champion`
    raises."""
    with mlflow_client(uri) as client:
        get_version(client, name, version)
        return set_champion(client, name, version, signing)


def rollback(uri: str, name: str, signing: Path | None = None) -> tuple[int, int]:
    """Return the alias champion to the previous champion. Returns that version and the one it replaces.

    Raises UserError, and DataError for a champion or a previous one whose promotion is not signed.
    """
    with mlflow_client(uri) as client:
        check_name(client, name)
        now = trusted_champion(client, name, signing)
        if now is None:
            raise UserError(f"model {name} has no champion", fix=f"raypath promote {name} VERSION")
        before = now.tags.get(PREVIOUS_CHAMPION, "")
        if not before:
            raise UserError(
                f"version {now.version} of {name} is the first champion; there is none before it",
                fix=f"raypath promote {name} VERSION",
            )
        tags = get_version(client, name, int(before)).tags
        check_version(name, int(before), tags, trusted_keys(signing), promoted=True)
        client.set_registered_model_alias(name, CHAMPION, before)
        return int(before), now.version


def demote(uri: str, name: str, rejected: int, before: int = 0) -> int:
    """Take the alias champion from a rejected version. Returns the champion afterwards.

    The version that receives it was champion before: replicas, which cannot sign, accept no other. An alias that was
    moved meanwhile is left alone. MLflow has no compare-and-set, so a race within the time of one
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
