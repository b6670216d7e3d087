"""The errors a user can meet, all in one tree.

RaypathError                 one line: what happened; what to do
  UserError                  the user can mend it           exit status 2
    ParamsError              a setting: unknown, mistyped, out of range
    GraphError               a workflow or component that does not fit together, with file and line
    DataError                a file, a column, a label, a model folder
    PortInUse                a port that was asked for belongs to another program
  PlatformError              ours or the machine's          exit status 1
    StoreError               the store: no room, damaged
    Unavailable              a service that does not answer (retried with backoff)
  StepFailed                 a step raised something unforeseen  exit status 1
"""

from __future__ import annotations


class RaypathError(Exception):
    """What happened, and what to do about it, in one line; `step` is filled in by the runner."""

    exit_status = 1
    retry = False

    def __init__(self, what: str, *, fix: str = "", step: str = "") -> None:
        super().__init__(what)
        self.what = " ".join(what.split())
        self.fix = " ".join(fix.split())
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
    """The user's input; exit status 2."""

    exit_status = 2


class ParamsError(UserError):
    """A setting that is unknown, mistyped or out of range."""


class GraphError(UserError):
    """A workflow or a component that does not fit together."""


class DataError(UserError):
    """Data or a model that cannot be used as it is."""


class PortInUse(UserError):
    """A port that was asked for by name belongs to another program."""


class PlatformError(RaypathError):
    """Something under us failed; exit status 1."""


class StoreError(PlatformError):
    """The store is damaged, or the disk has too little room."""


class Unavailable(PlatformError):
    """A service does not answer; the runner tries again with backoff."""

    retry = True


class StepFailed(RaypathError):
    """A step raised what nobody foresaw: a defect of ours or of a user's component."""


def kinds() -> dict[str, type[RaypathError]]:
    """Every class of this tree by name, to carry an error across processes as plain text.

    Ray derives classes of its own from an error that crossed its processes; those are not of the tree.
    """
    found: dict[str, type[RaypathError]] = {}
    queue = [RaypathError]
    while queue:
        kind = queue.pop()
        found[kind.__name__] = kind
        queue.extend(sub for sub in kind.__subclasses__() if sub.__module__ == __name__)
    return found
