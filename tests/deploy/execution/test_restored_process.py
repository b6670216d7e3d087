"""Commands and steps put the process back as it was: umask, module search path, loggers, nodes of Ray Data."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from raypath.components.core.errors import ParamsError
from raypath.deploy.cli.project import init
from raypath.deploy.execution.process import configure_process, quiet_libraries
from raypath.deploy.ray_cluster.progress import _ray_data_on_node


@pytest.mark.parametrize("fails", [False, True])
def test_a_project_is_its_teams_to_read_and_the_process_stays_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    os.umask(0o077)
    search = list(sys.path)
    if fails:

        def full(*_: object) -> str:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(init, "schema_of", full)
        with pytest.raises(ParamsError, match=r"cannot write to .*: No space left on device"):
            init.init_project(tmp_path / "team")
    else:
        init.init_project(tmp_path / "team")
    assert (tmp_path / "team" / "params.yaml").stat().st_mode & 0o777 == 0o644
    assert os.umask(0o077) == 0o077
    assert sys.path == search


def test_a_command_keeps_new_files_private_and_the_users_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_TEST_SET", "user")
    monkeypatch.setenv("RAYPATH_TEST_UNSET", "")
    monkeypatch.delenv("RAYPATH_TEST_UNSET")
    os.umask(0o022)
    configure_process(environment={"RAYPATH_TEST_SET": "ours", "RAYPATH_TEST_UNSET": "ours"})
    assert os.umask(0o022) == 0o077
    assert (os.environ["RAYPATH_TEST_SET"], os.environ["RAYPATH_TEST_UNSET"]) == ("user", "ours")


def test_libraries_log_again_after_an_error() -> None:
    before = logging.root.manager.disable

    def run() -> None:
        with quiet_libraries():
            assert not logging.getLogger("ray").isEnabledFor(logging.INFO)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert logging.root.manager.disable == before


@pytest.mark.filterwarnings("ignore:`use_.* is deprecated")
def test_ray_data_may_use_all_nodes_again_after_a_step() -> None:
    from ray.data import DataContext

    options = DataContext.get_current().execution_options
    before = options.label_selector

    def run() -> None:
        with _ray_data_on_node("n1"):
            assert options.label_selector == {"ray.io/node-id": "n1"}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert options.label_selector == before
