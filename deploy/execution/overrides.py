"""Settings from a YAML file (`-f`) and from the command line (`-s key=value`), as flat dotted keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raypath.components.core.errors import ParamsError
from raypath.components.core.params import flatten

MAX_BYTES = 1 << 20
"""Maximum size of a file of settings."""
MAX_DEPTH = 50
"""Maximum nesting of a file of settings."""
MAX_VALUES = 20_000
"""Maximum number of keys and values in a file of settings."""
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
        tree = _load(path) or {}
    except OSError as error:
        raise ParamsError(f"-f {path}: {error.strerror}", fix="give a readable YAML file") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(f"-f {path}: {' '.join(str(error).split())}", fix="give a readable YAML file") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"-f {path} contains no mapping", fix="write `key: value` lines")
    return dict(flatten(tree))


def _load(path: Path) -> Any:
    """Parse a YAML file within limits: aliases in a few lines may stand for billions of values.

    Raises ParamsError for a file that exceeds one.
    """
    import yaml

    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ParamsError(f"-f {path} is larger than {MAX_BYTES >> 20} MiB", fix="give a file of settings")
    text, depth = content.decode(), 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 1
            what = f"-f {path} line {line} is nested more than {MAX_DEPTH} levels deep"
            raise ParamsError(what, fix="write settings as group: {key: value}")
    loader = _unique_keys()(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MAX_VALUES:
            what = f"-f {path} has more than {MAX_VALUES:,} values, its aliases (*name) resolved"
            raise ParamsError(what, fix="write the values without aliases")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: Any, known: dict[int, int]) -> int:
    """Count the values of a node with its aliases resolved; one that contains itself has more than any limit."""
    if isinstance(node.value, str):
        return 1
    children = [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]
    if id(node) not in known:
        known[id(node)] = MAX_VALUES
        known[id(node)] = 1 + sum(_count(child, known) for child in children)
    return known[id(node)]


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
