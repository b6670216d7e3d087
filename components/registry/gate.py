"""The gate: give a new version the alias champion or challenger, once and for all.

The decision is recorded in the version's tags: the reason before the alias moves, the alias after it. An interrupted
attempt therefore resumes with what was decided, and a decided version moves no alias again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raypath.components.registry import aliases
from raypath.components.registry.client import RegisteredVersion
from raypath.components.registry.evidence import Decision
from raypath.components.registry.tags import CHALLENGER, CHAMPION
from raypath.components.tracking.tags import DECIDED, REASON


def resolve_alias(
    client: Any,
    name: str,
    version: int,
    signing: Path | None,
    compare: Callable[[RegisteredVersion | None, dict[str, str]], Decision],
) -> tuple[str, str]:
    """Return alias and reason of a version; an earlier attempt's decision is in the version's tags.

    Args:
        compare: Decides, given the champion, whose signature is checked, or None without one, and the version's tags.
    """
    tags = dict(client.get_model_version(name, str(version)).tags)
    if DECIDED in tags:
        return tags[DECIDED], tags[REASON]
    champion = aliases.trusted_champion(client, name, signing)
    if champion is not None and champion.version == version:
        # Interrupted between moving the alias and recording it.
        alias, reason = CHAMPION, tags.get(REASON, "")
    else:
        decision = compare(champion, tags)
        alias, reason = CHAMPION if decision.promote else CHALLENGER, decision.reason
        client.set_model_version_tag(name, str(version), REASON, reason)
        if decision.promote:
            aliases.set_champion(client, name, version, signing)
        else:
            client.set_registered_model_alias(name, CHALLENGER, str(version))
    client.set_model_version_tag(name, str(version), DECIDED, alias)
    return alias, reason
