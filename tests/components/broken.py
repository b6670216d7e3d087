"""A version that is registered broken."""

import json
from pathlib import Path

from raypath.components.inference import golden_examples as examples

_record = examples.record


def wrong(folder: Path, threads: int = 0) -> None:
    """In the place of `examples.record`: what a model is said to have answered, which it will not."""
    _record(folder, threads)
    known = json.loads((folder / examples.FILE).read_text())
    known["outputs"] = {name: [[x + 9.0 for x in row] for row in rows] for name, rows in known["outputs"].items()}
    (folder / examples.FILE).write_text(json.dumps(known))
