"""What is opened from folders that another user of the machine may have made: compiled code, copies of models."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch

from raypath.components import PlatformError
from raypath.components.registry.cache import cache_folder
from raypath.components.training.runtime import compile as compiling

# torch's compiler imports a part of torch that warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
NOBODY = 65_534


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a cache, and one for temporary files in which another user has been."""
    (tmp_path / "tmp").mkdir(mode=0o777)
    (tmp_path / "tmp" / "torchinductor_me").mkdir(mode=0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("RAYPATH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOGNAME", "me")
    monkeypatch.setenv(VARIABLE, "")  # so that it is as before after the test
    monkeypatch.delenv(VARIABLE)
    return tmp_path


@pytest.mark.parametrize("imported_before", [False, True])
def test_compiled_code_is_not_loaded_from_a_folder_that_anyone_may_make(place: Path, imported_before: bool) -> None:
    """PyTorch opens pickles and libraries there; another user's `os.system` ran as the one who trained."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    if imported_before:
        assert Path(cache_dir()) == place / "tmp" / "torchinductor_me"
    compiling.compile_model(torch.nn.Identity())
    assert Path(cache_dir()) == place / "cache" / "compiled"
    assert Path(cache_dir()).stat().st_mode & 0o777 == 0o700


def test_a_folder_of_the_users_own_choice_is_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(place / "mine"))
    compiling.compile_model(torch.nn.Identity())
    assert os.environ[VARIABLE] == str(place / "mine")


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")
@pytest.mark.parametrize("planted", ["cache", "cache/models", "link"])
def test_copies_of_models_are_not_taken_from_another_user(place: Path, planted: str) -> None:
    (place / "cache" / "models").mkdir(parents=True, mode=0o700)
    if planted == "link":
        (place / "cache" / "models").rename(place / "theirs")
        (place / "cache" / "models").symlink_to(place / "theirs")
        os.chown(place / "cache" / "models", NOBODY, NOBODY, follow_symlinks=False)
    else:
        os.chown(place / planted, NOBODY, NOBODY)
    with pytest.raises(PlatformError, match="belongs to somebody else"):
        cache_folder()


def test_a_cache_that_others_may_write_to_is_not_used(place: Path) -> None:
    (place / "cache" / "models").mkdir(parents=True)
    (place / "cache" / "models").chmod(0o777)
    with pytest.raises(PlatformError, match="others may write to it"):
        cache_folder()


def test_without_a_cache_a_model_is_not_compiled(place: Path) -> None:
    (place / "cache").touch()
    with pytest.raises(PlatformError, match="cannot use"):
        cache_folder()
    plain = torch.nn.Identity()
    assert compiling.compile_if_faster(plain, [torch.zeros(1)], lambda model, batch: model(batch)) is None
