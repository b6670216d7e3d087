"""What the registry is told of a version that a replica did not take, and how it loses its alias again."""

from __future__ import annotations

from raypath.components.registry import client as registry


def withdraw(uri: str, name: str, refused: int, before: int = 0) -> int:
    """Give the alias champion back where a refused version still holds it; returns the version that holds it then.

    before: whom to give it to, 0 for the version that held it before the refused one; without one it stays. Who moved
    the alias meanwhile is left alone (MLflow cannot compare and set: what is left is the time of a request).
    """
    with registry.talking_to(uri) as client:
        now = registry.champion(client, name)
        if now is None or now.version != refused:
            return now.version if now else 0
        before = before or int(now.tags.get(registry.PREVIOUS) or 0)
        if not before or before == refused:
            return refused
        client.set_registered_model_alias(
            name, registry.CHAMPION, str(registry.by_number(client, name, before).version)
        )
        return before


def refusal(uri: str, name: str, version: int) -> str:
    """Why a replica did not take a version, "" for one that none refused since it became the champion."""
    with registry.talking_to(uri) as client:
        return str(registry.by_number(client, name, version).tags.get(registry.REFUSED, ""))


def champion_before(uri: str, name: str, version: int) -> int:
    """The version that held the alias champion before this one, 0 for none."""
    with registry.talking_to(uri) as client:
        return int(registry.by_number(client, name, version).tags.get(registry.PREVIOUS) or 0)


def tag(uri: str, name: str, version: int, key: str, value: str) -> None:
    """Note something with a version. Raises Unavailable."""
    with registry.talking_to(uri) as client:
        client.set_model_version_tag(name, str(version), key, value[:5000])
