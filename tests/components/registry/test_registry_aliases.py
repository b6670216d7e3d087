"""Aliases and tags of the registry, in the order in which they are set, and the errors of its client in full."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.registry import aliases, client
from raypath.components.registry.signing import keys
from raypath.components.registry.signing.check import check_version, is_promoted
from raypath.components.registry.snapshot import RegistrySnapshot
from raypath.components.tracking.tags import (
    PREVIOUS_CHAMPION,
    PROMOTION,
    REASON,
    REJECTED,
)
from tests.components.registry.memory_registry import URI, MemoryRegistry
from tests.raised import raised


def test_a_first_champion_and_one_after_it(registry: MemoryRegistry) -> None:
    assert aliases.promote(URI, "shop", 1) == 0
    first = [call[:3] for call in registry.calls]
    assert first == [("tag", "1", PREVIOUS_CHAMPION), ("tag", "1", PROMOTION), ("alias", "champion", "1")]
    assert registry.tags("shop", 1)[PREVIOUS_CHAMPION] == ""
    registry.tags("shop", 2).update({REASON: "better", REJECTED: "by a replica"})
    registry.aliases()["challenger"] = "2"
    registry.calls.clear()
    assert aliases.promote(URI, "shop", 2) == 1
    assert [call[:3] for call in registry.calls] == [
        ("tag", "2", PREVIOUS_CHAMPION),
        ("tag", "2", PROMOTION),
        ("no tag", "2", REJECTED),
        ("alias", "champion", "2"),
        ("no alias", "challenger"),
    ]
    assert registry.tags("shop", 2)[PREVIOUS_CHAMPION] == "1"
    assert check_version("shop", 2, registry.tags("shop", 2), keys.trusted_keys(None), promoted=True) == "digest"
    assert is_promoted("shop", 2, registry.tags("shop", 2), keys.trusted_keys(None)) is True
    registry.calls.clear()
    assert aliases.promote(URI, "shop", 2) == 2, "again"
    assert registry.calls == []
    found = aliases.trusted_champion(registry, "shop", None)
    assert found is not None
    assert (found.name, found.version, found.created) == ("shop", 2, 3.0)
    assert aliases.alias_target(URI, "shop", "champion") == (2, "models:/m-2")
    assert aliases.alias_target(URI, "shop", "best") is None
    del registry.tags("shop", 2)[PROMOTION]
    assert is_promoted("shop", 2, registry.tags("shop", 2), keys.trusted_keys(None)) is False
    assert aliases.set_champion(registry, "shop", 2) == 2
    assert registry.tags("shop", 2)[PREVIOUS_CHAMPION] == "", "it is its own predecessor"


def test_a_champion_that_another_follows_comes_back(registry: MemoryRegistry) -> None:
    what = "UserError: model shop has no champion; raypath promote shop VERSION"
    assert raised(lambda: aliases.rollback(URI, "shop")) == what
    for number in (1, 3):
        aliases.promote(URI, "shop", number)
    assert aliases.rollback(URI, "shop") == (1, 3)
    what = "version 1 of shop is the first champion; there is none before it; raypath promote shop VERSION"
    assert raised(lambda: aliases.rollback(URI, "shop")) == f"UserError: {what}"
    aliases.promote(URI, "shop", 2)
    del registry.tags("shop", 1)[PROMOTION]
    what = "DataError: shop version 1 was made champion without a signature; look at it, then run"
    fix = "`raypath models --sign shop 1`, or register the model again"
    assert raised(lambda: aliases.rollback(URI, "shop")) == f"{what} {fix}"


def test_a_rejected_champion_gives_its_alias_back(registry: MemoryRegistry) -> None:
    assert aliases.demote(URI, "shop", 1) == 0
    for number in (1, 2):
        aliases.promote(URI, "shop", number)
    assert aliases.demote(URI, "shop", 1) == 2, "it is champion no more"
    assert aliases.demote(URI, "shop", 2) == 1
    assert aliases.demote(URI, "shop", 1) == 1, "there is none before it"
    aliases.promote(URI, "shop", 2)
    assert aliases.demote(URI, "shop", 2, before=2) == 2
    assert aliases.demote(URI, "shop", 2, before=3) == 3
    assert registry.aliases() == {"champion": "3"}
    assert aliases.rejection_reason(URI, "shop", 2) == ""
    aliases.set_tag(URI, "shop", 2, REJECTED, "x" * 6000)
    assert aliases.rejection_reason(URI, "shop", 2) == "x" * 5000


def test_a_name_a_version_and_an_alias_that_do_not_exist(registry: MemoryRegistry) -> None:
    registry.aliases().update(champion="1", best="2")

    def resolve(source: str) -> str:
        return raised(lambda: client.resolve(URI, source, Path()))

    wanted = "wanted models:/NAME@ALIAS or models:/NAME/VERSION; see `raypath models`"
    for source in ("models:/shop", "models:/shop@", "models:/a/b/1", "models:/shop/x", "shop@champion"):
        assert resolve(source) == f"UserError: got {source}; {wanted}"
    assert resolve("models:/shpo@champion") == "DataError: the registry has no model shpo; did you mean shop?"
    assert resolve("models:/xyz/1") == "DataError: the registry has no model xyz; it has other, shop"
    assert resolve("models:/shop/9") == "DataError: model shop has no version 9; its versions: 3, 2, 1"
    assert resolve("models:/shop@worst") == (
        "DataError: model shop has no alias worst; its aliases: best, champion; see `raypath models`"
    )
    assert resolve("models:/other@best") == (
        "DataError: model other has no alias best; its aliases: none; see `raypath models`"
    )
    registry.models["other"].versions.clear()
    assert resolve("models:/other/1") == "DataError: model other has no version 1; its versions: none"
    registry.models.clear()
    assert resolve("models:/xyz/1") == "DataError: the registry has no model xyz; it has no model yet"
    assert client.read_aliases(registry, "xyz") == {}
    assert client.versions(registry, "xyz") == []


@pytest.mark.parametrize(
    ("source", "promoted", "wanted"),
    [
        ("models:/shop@champion", None, True),
        ("models:/shop@champion", False, False),
        ("models:/shop/1", None, False),
        ("models:/shop@best", True, True),
    ],
)
def test_a_champion_has_to_be_promoted(
    registry: MemoryRegistry, source: str, promoted: bool | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.aliases().update(champion="1", best="1")
    seen: list[Any] = []

    def check(*given: Any) -> str:
        seen.append((given[0], given[1], given[4]))
        return "digest"

    monkeypatch.setattr(client, "check_version", check)
    monkeypatch.setattr(client, "fetch", lambda *given: Path(given[4]))
    assert client.resolve(URI, source, Path(), promoted=promoted) == ("shop", 1, Path("digest"))
    assert seen == [("shop", 1, wanted)]


def test_versions_are_listed_with_the_newest_first(registry: MemoryRegistry) -> None:
    registry.aliases().update(champion="1", best="1", challenger="3")
    found = [(each.name, each.version, each.aliases, each.created) for each in client.list_models(URI)]
    assert found == [
        ("other", 1, (), 1.5),
        ("shop", 3, ("challenger",), 4.5),
        ("shop", 2, (), 3.0),
        ("shop", 1, ("best", "champion"), 1.5),
    ]
    assert [each.version for each in client.list_registered(registry, "shop")] == [3, 2, 1]


def test_a_snapshot_reads_each_alias_and_version_once(
    registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.aliases()["champion"] = "2"
    seen, get = [], registry.get_registered_model

    def count(name: str) -> Any:
        seen.append(name)
        return get(name)

    monkeypatch.setattr(registry, "get_registered_model", count)
    snapshot = RegistrySnapshot(registry)
    assert [snapshot.by_alias("shop", alias) for alias in ("best", "champion")] == [None, snapshot.find("shop", 2)]
    assert snapshot.by_alias("shop", "champion") is snapshot.version("shop", 2)
    assert seen == ["shop"]
    assert snapshot.find("shop", 9) is None
    assert raised(lambda: snapshot.version("shop", 9)).startswith("DataError: model shop has no version 9")


def test_a_server_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException

    def ask(uri: str, error: str = "") -> str:
        def call() -> None:
            with client.mlflow_client(uri):
                raise MlflowException(error)

        return raised(call)

    what = "UserError: no MLflow server is set; the registry needs one; set MLFLOW_TRACKING_URI, or ray.mlflow,"
    assert ask("") == f"{what} kuberay.mlflow or kubeflow.tracking"
    what = f"Unavailable: MLflow does not respond at {URI}; start it with `raypath up`, or check the URI"
    assert ask(URI) == what
    here = f"sqlite:///{tmp_path}/a.db"
    monkeypatch.setattr("mlflow.MlflowClient", lambda **uris: uris)
    with client.mlflow_client(here) as opened:
        assert opened == {"tracking_uri": here, "registry_uri": here}
    text = f"Unavailable: MLflow at {here} rejected the request ({'x' * 200}); see the MLflow server's log"
    assert ask(here, "x" * 300 + "\nmore") == text
    fix = "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    assert ask(here, "API failed with error code 401 != 200") == (
        f"UserError: MLflow at {here} rejects the login, or its absence; {fix}"
    )


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (401, True), (403, True), (404, False), (500, False)])
def test_a_server_is_reachable_by_its_status(status: int, reachable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def send(method: str, url: str, **options: Any) -> Any:
        seen.append((method, url, options))
        return SimpleNamespace(status=status)

    monkeypatch.setattr(client.http, "send", send)
    assert client.is_reachable(f"{URI}/") is reachable
    assert seen == [("GET", f"{URI}/health", {"timeout": 3.0, "follow_redirects": True})]
    monkeypatch.setattr(client.login, "is_foreign", lambda _: True)
    assert not client.is_reachable(URI)
    assert client.is_reachable("sqlite:///a.db")
