"""Promotion by live requests: the permission for it, the run that collects the counts, and what follows a decision.

A replica has no key to sign with. The step `serve`, which has one, signs a permission in advance: this version may take
the place of that champion. It also makes a run in MLflow, where all replicas store their counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypath.components.core.errors import UserError
from raypath.components.registry.client import find_version, get_version, read_aliases
from raypath.components.registry.presentation import show_decision
from raypath.components.registry.signing.check import check_version
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.keys import signing_key, trusted_keys
from raypath.components.registry.signing.records import Permission, sign_permission, verify_permission
from raypath.components.registry.tags import CHAMPION
from raypath.components.tracking.experiments import experiment_id
from raypath.components.tracking.tags import (
    DECIDED,
    ID,
    KIND,
    LIVE,
    LIVE_DONE,
    PREVIOUS_CHAMPION,
    REASON,
    REJECTED,
    VERSION,
)


class Superseded(UserError):
    """The champion is another one than that of the test, which therefore decides nothing."""


def permit(client: Any, experiment: str, name: str, version: int, previous: int, signing: Path | None) -> Permission:
    """Permit live requests to promote a version in place of the champion `previous`. Doing so again changes nothing.

    Raises DataError for a version that is not signed, UserError without a key.
    """
    keys = trusted_keys(signing)
    tags = get_version(client, name, version).tags
    check_version(name, version, tags, keys)
    try:
        there = verify_permission(name, version, tags, keys)
    except Untrusted:
        there = None
    if there is not None and there.previous == previous and LIVE_DONE not in client.get_run(there.run).data.tags:
        return there
    permission = Permission(previous, _run(client, experiment, name, version, previous))
    record = sign_permission(signing_key(signing), name, version, permission)
    client.set_model_version_tag(name, str(version), LIVE, record)
    return permission


def promote_live(client: Any, name: str, version: int, previous: int, reason: str) -> None:
    """Make a version the champion, by its permission; may be repeated after an interruption. Raises Superseded."""
    aliases = read_aliases(client, name)
    if aliases.get(CHAMPION) not in (previous, version):
        raise Superseded(f"version {aliases.get(CHAMPION)} of {name} is champion by now")
    client.set_model_version_tag(name, str(version), REASON, reason)
    client.set_model_version_tag(name, str(version), PREVIOUS_CHAMPION, str(previous))
    if REJECTED in get_version(client, name, version).tags:
        client.delete_model_version_tag(name, str(version), REJECTED)
    client.set_registered_model_alias(name, CHAMPION, str(version))
    _drop_aliases(client, name, version)
    client.set_model_version_tag(name, str(version), DECIDED, CHAMPION)
    show_decision(client, name, version, CHAMPION, reason)


def send_back(client: Any, name: str, version: int, reason: str) -> None:
    """Take every alias but champion from a version, so that it receives no request; may be repeated."""
    if find_version(client, name, version) is None:
        return
    client.set_model_version_tag(name, str(version), REASON, reason)
    _drop_aliases(client, name, version)
    show_decision(client, name, version, "sent back", reason)


def _drop_aliases(client: Any, name: str, version: int) -> None:
    for alias, number in read_aliases(client, name).items():
        if number == version and alias != CHAMPION:
            client.delete_registered_model_alias(name, alias)


def _run(client: Any, experiment: str, name: str, version: int, previous: int) -> str:
    """Return the id of the run of a test, which is made once."""
    key = f"live/{name}/{version}/{previous}"
    home = experiment_id(client, experiment)
    found = client.search_runs([home], f"tags.`{ID}` = '{key}'", max_results=1)
    if found and LIVE_DONE not in found[0].data.tags:
        return str(found[0].info.run_id)
    title = f"{name} {version} against {previous}, live requests"
    made = client.create_run(home, tags={ID: key, KIND: "live test", VERSION: f"{name}/{version}"}, run_name=title)
    return str(made.info.run_id)
