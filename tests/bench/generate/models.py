"""What the servers get, in a process of its own: `python -m tests.bench.generate.models GIVEN.json OUT.json`.

The model in bfloat16 as a folder of transformers, the same as GGUF in Q8_0, and the folder that Raypath registers:
with the engine that registration chooses on the validation split of the sample of `chat`, unless one is named.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from raypath.components.cards.facts import ModelFacts
from raypath.components.core.files import link
from raypath.components.export.formats import export_model
from raypath.components.inference.generation.selection.choice import EngineChoice
from raypath.components.inference.generation.selection.measuring import prepare_engine
from raypath.components.models.base_models import base_folder
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.components.models.process import configure_process
from raypath.components.register import RegisterParams
from tests.bench.generate.contenders import CONTEXT, Setup


def make(given: dict[str, Any]) -> dict[str, Any]:
    """Make the folders. given: folder, base, threads, precision. Returns the setup, and the table of the choice."""
    folder, base, threads = Path(given["folder"]), base_folder(given["base"]), given["threads"]
    configure_process(threads)
    own, gguf, registered = folder / "own", folder / "gguf", folder / "registered"
    own.mkdir()
    for path in base.iterdir():
        link(str(path), str(own / path.name))
    write_metadata(own, ModelMetadata(task="text_generation", labels=(), base=given["base"], max_length=CONTEXT))
    export_model(own, gguf, "gguf", ModelFacts("bench"), "q8_0", lambda done, total: None)
    wanted = given["precision"]
    data = _validation_split(folder, threads) if wanted == "auto" else None
    found = prepare_engine(own, registered, data, threads, wanted, RegisterParams().tolerance)
    setup = Setup(
        folder=str(folder),
        model=str(base),
        gguf=str(next(gguf.glob("*.gguf"))),
        registered=str(registered if found else own),
        threads=threads,
    )
    return {"setup": setup.model_dump(), "engine": _shown(found)}


def _shown(choice: EngineChoice | None) -> dict[str, Any]:
    return {"chosen": choice.engine, "table": [each.model_dump() for each in choice.table]} if choice else {}


def _validation_split(folder: Path, threads: int) -> Any:
    from raypath.components.read import read
    from raypath.components.split import split
    from raypath.workflows.chat import Chat
    from tests.bench.reviews import context, settled

    given = Chat()
    reads, splits = (context(folder, name, threads) for name in ("read", "split"))
    data = settled(reads, read.fn(reads, given.read))
    return settled(splits, split.fn(splits, data, given.split)).valid


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(make(json.loads(Path(sys.argv[1]).read_text()))), encoding="utf-8")
