"""`raypath predict -o`: an output that cannot be written is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypath.components.core.errors import ParamsError
from raypath.deploy.cli.predict import predict_file


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".csv", "/proc/predictions.csv", "none/a.csv", "a.txt", "there.csv", "link.csv"]
)
def test_it_is_refused_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    (tmp_path / "link.csv").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ParamsError, match=r"cannot be written|no folder|unknown format|exists"):
        predict_file(tmp_path / "home", "models:/m@champion", "a.csv", tmp_path / name, [])
    assert sorted(tmp_path.iterdir()) == before, "nothing was started, and no file is left"
