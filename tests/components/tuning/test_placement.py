"""Placement groups of trials that a lost attempt leaves."""

from __future__ import annotations

from pathlib import Path

from ray.util.placement_group import placement_group_table

from raypath.components.tuning.placement import RecordedPlacement, remove_recorded


def state(name: str) -> str:
    return str(placement_group_table()[name]["state"])


def test_what_an_attempt_left_is_removed_by_the_next(tmp_path: Path, ray_head: None) -> None:
    record = tmp_path / "placement-groups"
    remove_recorded(record)  # the first attempt
    factory = RecordedPlacement([{"CPU": 0.5}], record)
    assert factory == RecordedPlacement([{"CPU": 0.5}], record), "trials with equal resources share processes"
    first, second = factory.to_placement_group(), factory.to_placement_group()
    for made in (first, second):
        assert made.wait(30)
    assert record.read_text().split() == [first.id.hex(), second.id.hex()]
    with record.open("a") as file:
        file.write("ff" * 18 + "\n")  # of another cluster
    remove_recorded(record)
    assert [state(made.id.hex()) for made in (first, second)] == ["REMOVED", "REMOVED"]
    assert not record.exists()
    other = factory.to_placement_group()
    assert other.wait(30), "the resources are free again"
    remove_recorded(record)
