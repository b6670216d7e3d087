"""Files of a report: report.html and report.json in the step's folder, and those that are logged to MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from raypath.components.core.artifacts import PAGE
from raypath.components.core.context import Context
from raypath.components.core.files import is_disk_full, write_atomically

JSON = "report.json"
LOGGED = ".report"
"""Folder in the step's scratch; hidden folders of scratch are not copied to the store."""
Kind = TypeVar("Kind", bound=BaseModel)
Text = TypeVar("Text")


def write_files(folder: Path, page: str, report: BaseModel) -> None:
    """Write a page and the values of its report, readable by the owner only."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAGE, page)
    write_atomically(folder / JSON, report.model_dump_json(indent=2) + "\n")


def publish(
    ctx: Context,
    write: Callable[[Path, Kind, Mapping[int, Text]], None],
    report: Kind,
    texts: Mapping[int, Text],
    log_texts: bool,
) -> None:
    """Write the report with texts, and log one without them unless `log_texts` allows them.

    write: Called with a folder, the report, and the texts that its page shows, by row number.
    """
    write(ctx.out, report, texts)
    logged = ctx.out
    if not log_texts:
        logged = ctx.scratch / LOGGED
        write(logged, report, {})
    for name in (PAGE, JSON):
        ctx.track.artifact(logged / name, "evaluation")


@contextmanager
def warn_on_failure(ctx: Context) -> Iterator[None]:
    """Log an unexpected error as a warning: metrics are worth more than the page. A full disk is raised: once there is
    room, the step runs again and writes both."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise
        ctx.log.warning(
            "the evaluation report was not written (%s); the metrics are not affected", type(error).__name__
        )
        ctx.log.debug("the evaluation report was not written", exc_info=True)
