"""The wheel and the source distribution: complete, and usable without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, f'build_{sys.argv[1]}')(sys.argv[2])"
IMAGE = f"kuberay.image=registry.example.com/raypath@sha256:{'a' * 64}"


def _build(kind: str, folder: Path, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-c", BUILD, kind, str(out)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    [made] = out.iterdir()
    return made


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, with its symbolic links: building leaves files behind."""
    pytest.importorskip("setuptools", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("wheel", checkout, tmp_path_factory.mktemp("wheel") / "out")


def _tracked(checkout: Path) -> set[str]:
    """Files of the package in the checkout, by their names in the wheel."""
    found = set()
    for folder in ("components", "workflows", "deploy", "k8s/base"):
        for path in (checkout / folder).rglob("*"):
            if path.suffix in (".py", ".html", ".sh", ".yaml") and not path.is_relative_to(
                checkout / "deploy" / "image"
            ):
                found.add(f"raypath/{path.relative_to(checkout).as_posix()}")
    return found | {"raypath/__init__.py", "raypath/py.typed"}


def test_the_wheel_has_every_module_and_data_file(checkout: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.startswith("raypath/")} >= _tracked(checkout)
    assert {name.partition("/")[0] for name in names} == {"raypath", f"{wheel.name.partition('-py3')[0]}.dist-info"}


def test_a_wheel_built_from_the_source_distribution_is_the_same(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(_build("sdist", checkout, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    [folder] = tmp_path.glob("raypath-*")
    again = _build("wheel", folder, tmp_path / "wheel")
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run Python in an environment with the installed wheel and the packages of this one, in an empty folder."""
    environment, empty = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("empty")
    venv.create(environment, symlinks=True)
    site = environment / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    shared = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))]
    (site / "shared.pth").write_text("\n".join(dict.fromkeys(shared)))
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def python(*words: str) -> str:
        command = [str(environment / "bin" / "python"), *words]
        done = subprocess.run(
            command, cwd=empty, env=variables, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert str(site) in python("-c", "import raypath; print(raypath.__file__)")
    return python


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["list"], "text_classification"),
        (["check", "text_classification"], "text_classification"),
        (["render", "text_classification", "--on", "kuberay", "-s", IMAGE], "kind: RayService"),
        (["schedule", "text_classification", "--cron", "0 3 * * 1", "--on", "kuberay", "-s", IMAGE], "kind: CronJob"),
    ],
    ids=["list", "check", "render", "schedule"],
)
def test_commands_run_from_the_installed_wheel(installed: Callable[..., str], words: list[str], says: str) -> None:
    assert says in installed("-m", "raypath.deploy.cli.main", *words)
