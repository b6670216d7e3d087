"""Model metadata: the file raypath.json in a model folder, with the task, the labels and the decision thresholds."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from raypath.components.core.errors import DataError

CARD = "raypath.json"


class Card(BaseModel):
    """What Raypath adds to a transformers folder, in the file raypath.json."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    task: str
    labels: tuple[str, ...]
    label_kind: str = "string"
    max_length: int
    base: str = ""
    thresholds: tuple[float, ...] = ()
    """Probability from which a class is predicted: one for the second of two classes, or one a class; () is the
    likeliest class, or 0.5."""
    means: tuple[float, ...] = ()
    """Of each numeric target in training; the head answers in standard deviations from it."""
    scales: tuple[float, ...] = ()
    """Standard deviation of each numeric target in training."""


def write_card(folder: Path, card: Card) -> None:
    """Write raypath.json into a model folder."""
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_card(folder: Path) -> Card:
    """The card of a model folder. Raises DataError when the folder is not one of ours."""
    path = folder / CARD
    if not path.is_file():
        raise DataError(f"{folder} holds no {CARD}", fix="give a model that Raypath fine-tuned")
    return Card.model_validate_json(path.read_text(encoding="utf-8"))
