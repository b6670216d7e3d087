"""Locations of artifacts that the tracking server accepts, and paths below its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from raypath.components.tracking.server import locations
from raypath.components.tracking.server.locations import OWN, SOURCES, _local_repository

OWNED = ["mlflow-artifacts:/", "mlflow-artifacts:/1/artifacts", "mlflow-artifacts:/a..b", "mlflow-artifacts:/..a"]
FOREIGN = [
    "mlflow-artifacts://host/1",
    "mlflow-artifacts:/..",
    "mlflow-artifacts:/a/../b",
    "mlflow-artifacts:/a/..",
    "mlflow-artifacts:/a%2e",
    "mlflow-artifacts:/a\\b",
    "mlflow-artifacts:/a?b",
    "mlflow-artifacts:/a#b",
    "mlflow-artifacts:/a\nb",
    "file:///etc",
    "/etc",
    "",
]


@pytest.mark.parametrize("location", [*OWNED, *FOREIGN])
def test_locations_of_this_server(location: str) -> None:
    assert bool(OWN.fullmatch(location)) is (location in OWNED)


@pytest.mark.parametrize("source", ["models:/m-1", "runs:/1/model", "prompt-template", *OWNED])
def test_sources_of_versions(source: str) -> None:
    assert SOURCES.fullmatch(source)


@pytest.mark.parametrize("source", ["models:/", "models://x", "runs:/a/..", "models:/a%", "file:///a", "x", *FOREIGN])
def test_sources_elsewhere(source: str) -> None:
    assert not SOURCES.fullmatch(source)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a server, itself a link, with a file, a folder and a link out of it."""
    (tmp_path / "real" / "1" / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "real" / "1" / "file").write_text("own")
    (tmp_path / "real" / "1" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "real" / "1" / "away").symlink_to(tmp_path)
    (tmp_path / "root").symlink_to("real")
    return tmp_path / "root"


def test_files_below_a_folder_that_is_a_link(root: Path, tmp_path: Path) -> None:
    found = _local_repository(root, str(root / "1"))
    assert sorted(each.path for each in found.list_artifacts()) == ["file", "sub"]
    (tmp_path / "new").write_text("new")
    found.log_artifact(str(tmp_path / "new"), "sub")
    assert [each.path for each in found.list_artifacts("sub")] == ["sub/new"]
    found._download_file("file", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_text() == "own"
    assert found.get_local_path("file") == str(root / "1" / "file")
    found.delete_artifacts("file")
    assert not (root / "1" / "file").exists()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("..", "the path leaves the artifacts of this server"),
        ("sub/../../2", "the path leaves the artifacts of this server"),
        ("/etc", "the path leaves the artifacts of this server"),
        ("link", "the path leads over a symbolic link"),
        ("away/secret", "the path leads over a symbolic link"),
    ],
)
def test_paths_that_lead_outside(root: Path, tmp_path: Path, path: str, text: str) -> None:
    found: Any = _local_repository(root, str(root / "1"))
    (tmp_path / "new").write_text("new")
    calls = [
        lambda: found.get_local_path(path),
        lambda: found.list_artifacts(path),
        lambda: found.delete_artifacts(path),
        lambda: found._download_file(path, str(tmp_path / "copy")),
        lambda: found.log_artifact(str(tmp_path / "new"), path),
        lambda: found.log_artifacts(str(tmp_path), path),
    ]
    for call in calls:
        with pytest.raises(MlflowException, match=f"^{text}$") as caught:
            call()
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert (tmp_path / "secret").read_text() == "secret"
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("destination", ["s3://bucket/store", "s3://bucket/store/", "folder"])
def test_a_server_opens_its_destination_alone(destination: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.artifact import artifact_repository_registry as registry

    made: dict[str, Any] = {}
    schemes = {"s3": lambda *given, **named: (given, named), "file": lambda *given, **named: "file"}
    monkeypatch.setattr(registry, "get_registered_artifact_repositories", lambda: schemes)
    monkeypatch.setattr(registry._artifact_repository_registry, "register", made.__setitem__)
    place = str(root / "1") if destination == "folder" else destination
    locations._check_repositories(place)
    assert list(made) == ["s3", "file"]
    open_own = made["s3"]
    plain = place.rstrip("/")
    if destination == "folder":
        assert sorted(each.path for each in open_own(f"{plain}/").list_artifacts()) == ["file", "sub"]
    else:
        for uri in (plain, f"{plain}/1/artifacts"):
            given = ((uri,), {"tracking_uri": "t", "registry_uri": "r"})
            assert open_own(uri, "t", registry_uri="r") == given
    for uri in (f"{plain}x", f"{plain}/../other", f"{plain}/..", "/etc", "s3://other/store"):
        with pytest.raises(MlflowException) as caught:
            open_own(uri)
        assert caught.value.message == f"artifact location {uri!r} is not in the storage of this server"
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
