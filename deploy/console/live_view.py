"""Live view of a run in a terminal: one line a step with progress and times; plain lines without a terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raypath.deploy.execution.progress import read_progress
from raypath.deploy.execution.run_history import Run, RunStatus, StepState, StepStatus

MARKS = {
    StepStatus.WAITING: ("·", "dim"),
    StepStatus.RUNNING: ("▸", "cyan"),
    StepStatus.REUSED: ("=", "blue"),
    StepStatus.DONE: ("✓", "green"),
    StepStatus.FAILED: ("✗", "red"),
    StepStatus.STOPPED: ("■", "yellow"),
}
PLAIN_SECONDS = 60.0
"""Seconds between the progress lines of a step in logs and pipes."""


def clock(seconds: float) -> str:
    """Format seconds as 4.2 s, 1:05 or 2:03:09."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class LiveView:
    """Context manager that draws a run in place, at most four times a second."""

    def __init__(self, home: Path, console: Console) -> None:
        self.home = home
        self.console = console
        self._live = Live(console=console, refresh_per_second=4, transient=False, redirect_stderr=False)
        self._drawn = 0.0

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, run: Run) -> None:
        """Draw the current state of the run."""
        if run.status is RunStatus.RUNNING and time.monotonic() - self._drawn < 0.2:
            return
        self._drawn = time.monotonic()
        self._live.update(self._render(run), refresh=True)

    def _render(self, run: Run) -> Group:
        table = Table(box=None, padding=(0, 1), show_header=False)
        for step in run.steps:
            table.add_row(*self._row(step))
            for note in step.notes:
                table.add_row("", "", "", Text(note, style="dim", overflow="fold"))
            for warning in step.warnings:
                table.add_row("", "", "", Text(f"! {warning}", style="yellow", overflow="fold"))
        elapsed = (run.ended or time.time()) - run.started
        return Group(Text(f"{run.id}  {clock(elapsed)}", style="bold"), table)

    def _row(self, step: StepState) -> list[Any]:
        mark, style = MARKS[step.status]
        running = step.status is StepStatus.RUNNING
        seconds = time.time() - step.started if running else step.seconds
        took = clock(seconds) if running or step.status.ran else ""
        name = Text(step.name, style=style if running else "")
        detail = self._progress(step) if running else _detail(step)
        return [Text(mark, style=style), name, Text(took, justify="right"), detail]

    def _progress(self, step: StepState) -> Table:
        """A bar and the step's message in one cell: warnings of other steps have the width of both."""
        done, total, message = read_progress(self.home, step.key)
        bar = ProgressBar(total=total or None, completed=done, width=24, pulse=not total)
        cell = Table.grid(padding=(0, 2, 0, 0))
        cell.add_row(bar, Text(message, style="dim", overflow="fold"))
        return cell


def _detail(step: StepState) -> Text:
    """The message of a step that does not run."""
    said = {StepStatus.REUSED: "reused", StepStatus.WAITING: step.reason, StepStatus.FAILED: step.error}
    return Text(said.get(step.status, ""), style="dim", overflow="fold")


class PlainView:
    """One line whenever a step starts or ends, and one a minute while it runs, for logs and pipes."""

    def __init__(self, home: Path, console: Console) -> None:
        self.home = home
        self.console = console
        self._printed: dict[str, str] = {}
        self._last_line: dict[str, float] = {}

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, run: Run) -> None:
        """Print changes of status, and the progress of steps that take long."""
        for step in run.steps:
            if self._printed.get(step.name, StepStatus.WAITING) != step.status:
                self._printed[step.name] = step.status
                self._last_line[step.name] = time.monotonic()
                took = f" in {clock(step.seconds)}" if step.status in (StepStatus.DONE, StepStatus.FAILED) else ""
                why = (
                    f": {step.reason}" if step.reason and step.status in (StepStatus.RUNNING, StepStatus.REUSED) else ""
                )
                self._print(f"{step.name:<12} {step.status}{took}{why}")
                if step.status is StepStatus.DONE:
                    for message in (*step.notes, *(f"warning: {warning}" for warning in step.warnings)):
                        self._print(f"{step.name:<12} {message}")
            elif step.status is StepStatus.RUNNING and time.monotonic() - self._last_line[step.name] >= PLAIN_SECONDS:
                self._last_line[step.name] = time.monotonic()
                done, total, message = read_progress(self.home, step.key)
                share = f"{done / total:.0%}, {message}" if total else message or "no progress reported yet"
                self._print(f"{step.name:<12} running for {clock(time.time() - step.started)}: {share}")

    def _print(self, line: str) -> None:
        # No markup: brackets in a message are text.
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def view_for(home: Path, console: Console) -> LiveView | PlainView:
    """Return the live view for a terminal, the plain view otherwise."""
    return LiveView(home, console) if console.is_terminal else PlainView(home, console)
