"""Settings from a YAML file (`-f`) and from the command line (`-s key=value`), as flat dotted keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raypath.components.core.errors import ParamsError
from raypath.components.core.params import flatten

MERGE = "tag:yaml.org,2002:merge"
"""Tag of the key `<<`, which may be given several times."""


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
        tree = yaml.load(path.read_text(encoding="utf-8"), _unique_keys()) or {}  # nosec
    except OSError as error:
        raise ParamsError(f"-f {path}: {error.strerror}", fix="give a readable YAML file") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(f"-f {path}: {' '.join(str(error).split())}", fix="give a readable YAML file") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"-f {path} contains no mapping", fix="write `key: value` lines")
    return dict(flatten(tree))


def _unique_keys() -> Any:
    """Return a safe loader that rejects a key that is given twice, of which YAML keeps the last without a word."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                    if key.value in seen:
                        twice = f"{key.value} is given twice"
                        raise yaml.constructor.ConstructorError(None, None, twice, key.start_mark)
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader
