"""A step that writes a marker into its artifact, its scratch folder and a temporary file, and may wait in the midst."""

import os
import tempfile
import time
from pathlib import Path

from raypath.components import Context, Dataset, Params, component

MARKER = "Marker-4711-of-the-data"


class MarkParams(Params):
    """Settings of `mark`."""

    wait: float = 0.0
    """Seconds between the scratch folder's file and the artifact."""


@component(version=1)
def mark(ctx: Context, params: MarkParams) -> Dataset:
    """Write the marker everywhere a step may write; count the attempts in the scratch folder."""
    attempts = ctx.scratch / "attempts.txt"
    attempts.write_text((attempts.read_text() if attempts.exists() else "") + f"{MARKER}\n")
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(MARKER)
        file.flush()
        if given := os.environ.get("MARK_READY"):
            # The copy of the scratch folder is waited for.
            while not list(Path(given).rglob("scratch/*/index.json")):
                time.sleep(0.02)
            print("ready", flush=True)
        time.sleep(params.wait if given else 0)
    (ctx.out / "rows.txt").write_text(attempts.read_text() * 3)
    (ctx.out / "empty").write_text("")
    return Dataset(uri="", digest="", rows=3, labels=(MARKER,))
