"""Error classes of Raypath, all in one tree.

RaypathError                 one line: what happened; what to do
  UserError                  the user's input               exit status 2
    ParamsError              a setting: unknown, mistyped, out of range
    GraphError               a workflow or component that does not fit together, with file and line
    DataError                a file, a column, a label, a model folder
      RowError               a row of a batch, which `numbered` names
    PortInUse                a requested port is used by another program
  PlatformError              the infrastructure             exit status 1
    StoreError               the store: disk full, corrupt
    Unavailable              a service does not respond (retried with backoff)
  StepFailed                 an unexpected error in a step  exit status 1
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that change a terminal, or the order in which it shows a line."""


def printable(text: str) -> str:
    r"""Replace control characters by escapes such as \x1b: a file's columns and names must not steer a terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class RaypathError(Exception):
    """Base of all errors. `what` happened and a `fix`, in one line; the runner sets `step`.

    retry: the runner retries the step.
    """

    exit_status = 1
    retry = False

    def __init__(self, what: str, *, fix: str = "", step: str = "") -> None:
        super().__init__(what)
        self.what = printable(" ".join(what.split()))
        self.fix = printable(" ".join(fix.split()))
        self.step = step

    def __str__(self) -> str:
        where = f"step {self.step}: " if self.step else ""
        todo = f"; {self.fix}" if self.fix else ""
        return f"{where}{self.what}{todo}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.fix, self.step)


def _rebuild(kind: type[RaypathError], what: str, fix: str, step: str) -> RaypathError:
    return kind(what, fix=fix, step=step)


class UserError(RaypathError):
    """Error in the user's input; exit status 2."""

    exit_status = 2


class ParamsError(UserError):
    """A setting that is unknown, mistyped or out of range."""


class GraphError(UserError):
    """A workflow or a component that does not fit together."""


class DataError(UserError):
    """Data or a model that cannot be used as it is."""


class RowError(DataError):
    """A row of a batch that cannot be used. row: its position in the batch."""

    def __init__(self, what: str, *, fix: str = "", step: str = "", row: int = 0) -> None:
        super().__init__(what, fix=fix, step=step)
        self.row = row


class PortInUse(UserError):
    """A requested port is used by another program."""


class PlatformError(RaypathError):
    """Failure of the infrastructure; exit status 1."""


class StoreError(PlatformError):
    """The store is corrupt, or its disk is full."""


class Unavailable(PlatformError):
    """A service does not respond; the runner retries with backoff."""

    retry = True


class StepFailed(RaypathError):
    """Unexpected error in a step: a defect of Raypath or of a user's component."""


def kinds() -> dict[str, type[RaypathError]]:
    """Return every class of the tree by name, to pass errors between processes as text.

    Subclasses from other modules are left out: Ray derives classes from errors that cross its processes.
    """
    found: dict[str, type[RaypathError]] = {}
    queue = [RaypathError]
    while queue:
        kind = queue.pop()
        found[kind.__name__] = kind
        queue.extend(sub for sub in kind.__subclasses__() if sub.__module__ == __name__)
    return found


@contextmanager
def numbered(split: str, first: int) -> Iterator[None]:
    """Turn a RowError of a batch into a DataError that names the row. first: number of rows before the batch."""
    try:
        yield
    except RowError as error:
        raise DataError(f"row {first + error.row + 1:,} of {split}: {error.what}", fix=error.fix) from None
