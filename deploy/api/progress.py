"""The view of a run in a terminal, in a notebook, in a log, or none."""

from __future__ import annotations

import importlib
import io
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, Self

from raypath.deploy.console.live_view import LiveView, PlainView
from raypath.deploy.console.terminal import Terminal
from raypath.deploy.execution.run_history import Run


class View(Protocol):
    """A watcher of a run, entered for its time."""

    def update(self, run: Run) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *_: Any) -> Any: ...


class NoView:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, run: Run) -> None:
        """Ignore the run."""


class NotebookView(LiveView):
    """The live view in the output of a notebook cell, replaced in place; needs no widgets."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, Terminal(file=io.StringIO(), force_jupyter=False, width=110))
        self._handle: Any = None
        self._shown = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, run: Run) -> None:
        """Replace the picture, twice a second at most while the run goes on."""
        if run.status == "running" and time.monotonic() - self._shown < 0.5:
            return
        self._shown = time.monotonic()
        # IPython is loaded, since this runs in its kernel; Raypath does not depend on it.
        shown: Any = importlib.import_module("IPython.display")
        picture = shown.HTML(self._html(run))
        if self._handle is None:
            self._handle = shown.display(picture, display_id=True)
        else:
            self._handle.update(picture)

    def _html(self, run: Run) -> str:
        paper = Terminal(file=io.StringIO(), record=True, force_jupyter=False, width=110)
        paper.print(self._render(run))
        return paper.export_html(inline_styles=True, code_format='<pre style="line-height:1.2">{code}</pre>')


def view_of(home: Path, progress: bool | None) -> AbstractContextManager[Any]:
    """Return the view for a call. progress: None shows it in terminals and notebooks, True everywhere, False never."""
    if progress is False:
        return NoView()
    if _in_notebook():
        return NotebookView(home)
    console = Terminal(stderr=True)
    if console.is_terminal:
        return LiveView(home, console)
    return PlainView(home, console) if progress else NoView()


def _in_notebook() -> bool:
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
