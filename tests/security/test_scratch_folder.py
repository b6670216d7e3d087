"""The folder of sockets in /tmp, which another user of the machine can make first."""

from pathlib import Path

import pytest

from raypath.components.core.errors import PlatformError
from raypath.deploy.local import services


def test_nothing_is_removed_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, planted = tmp_path / "home", tmp_path / "raypath-scratch"
    home.mkdir(mode=0o700)
    (tmp_path / "mine" / "ray").mkdir(parents=True)
    (tmp_path / "mine" / "ray" / "file").write_text("kept")
    planted.symlink_to(tmp_path / "mine")
    monkeypatch.setattr(services, "scratch", lambda _: planted)
    with pytest.raises(PlatformError, match="belongs to somebody else or is open to others; remove it"):
        services.up(home, mlflow=False)
    services.down(home)
    assert (tmp_path / "mine" / "ray" / "file").read_text() == "kept"
