"""Settings from a YAML file (`-f`) and from the command line (`-s key=value`), as flat dotted keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raypath.components.core.errors import ParamsError
from raypath.components.core.params import flatten


def from_line(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse `["a.b=c"]` into {"a.b": "c"}; values stay text. Raises ParamsError for an item without `=`."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ParamsError(f"-s got {pair!r}; wanted KEY=VALUE", fix="such as -s finetune.epochs=3")
        found[key.strip()] = value
    return found


def from_file(path: Path | None) -> dict[str, Any]:
    """Read and flatten a YAML file; {} for None. Raises ParamsError when it cannot be read."""
    if path is None:
        return {}
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(f"-f {path}: {' '.join(str(error).split())}", fix="give a readable YAML file") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"-f {path} contains no mapping", fix="write `key: value` lines")
    return dict(flatten(tree))
