"""Console of all commands: text of files and registries cannot steer the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from raypath.components.core.errors import printable


class Terminal(Console):
    """Rich console that shows control characters as escapes.

    A reader who has ended, as in `raypath runs | head`, is left to the command.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render to segments; those that move the cursor or set a color are Rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def readable_size(size: int) -> str:
    """Return a number of bytes as text, such as `12.3 MB`."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
