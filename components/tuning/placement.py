"""Placement groups of trials, which Ray keeps until the job ends if the node of their step is lost.

The next attempt would wait for resources that nothing uses: it removes those whose ids the lost one recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune import PlacementGroupFactory


class RecordedPlacement(PlacementGroupFactory):  # type: ignore[misc]
    """Factory of placement groups that appends the id of each to a file."""

    def __init__(self, bundles: Sequence[Mapping[str, float]], record: Path, **options: Any) -> None:
        super().__init__([dict(bundle) for bundle in bundles], **options)
        self.record = record

    def to_placement_group(self) -> Any:
        """Create a placement group."""
        made = super().to_placement_group()
        with self.record.open("a", encoding="ascii") as file:
            file.write(f"{made.id.hex()}\n")
        return made


def remove_recorded(record: Path) -> None:
    """Remove the placement groups of earlier attempts. Those that are gone, or of another cluster, are skipped."""
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    known = {} if not record.exists() else ray.util.placement_group_table()
    for name in record.read_text("ascii").split() if known else ():
        if known.get(name, {}).get("state", "REMOVED") != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))
    record.unlink(missing_ok=True)
