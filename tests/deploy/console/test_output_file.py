"""Files that a command writes where its user says."""

import os
import threading
from pathlib import Path

import pytest

from raypath.components.core.errors import ParamsError
from raypath.deploy.console.output_file import write_file


def test_a_file_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "out.yaml"
    write_file(file, "first, and longer")
    write_file(file, "ü")
    assert file.read_bytes() == "ü".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["out.yaml"]


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_file(pipe, "text")
    reader.join(timeout=20)
    assert read == ["text"]
    assert pipe.is_fifo()


def test_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"cannot write .*Is a directory.*choose another file"):
        write_file(tmp_path, "text")
