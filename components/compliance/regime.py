"""Regimes as data: a YAML file each in `regimes`, with the items of a checklist."""

from __future__ import annotations

import functools
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from raypath.components.compliance.profile import CONDITIONS
from raypath.components.core.errors import ParamsError

FOLDER = Path(__file__).parent / "regimes"
Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
Sentence = Annotated[str, Field(min_length=20, max_length=400)]


class Severity(StrEnum):
    """Weight of an item."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Item(_Model):
    """Requirement of a regime."""

    id: Id
    article: Annotated[str, Field(min_length=1, max_length=60)]
    """Number of the article, such as `Art. 32(1)(a)`."""
    requirement: Sentence
    """The requirement in plain words; not the text of the law."""
    severity: Severity
    check: Annotated[str, Field(pattern=r"^[a-z_]+$")]
    """Name of a check (`checks.CHECKS`)."""
    when: tuple[str, ...] = ()
    """Questions of the profile that have to be answered with yes, all of them."""
    statement: Id | None = None
    """Topic of the signed statement that answers where the check finds nothing."""
    applies_from: date | None = None
    """First day on which it has to be met; None for one in the past."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        unknown = sorted(set(self.when) - set(CONDITIONS))
        if unknown:
            raise ValueError(f"when has {', '.join(unknown)}; known are {', '.join(CONDITIONS)}")
        if self.check == "stated" and self.statement is None:
            raise ValueError("the check `stated` needs a statement")
        return self


class Regime(_Model):
    """A law, or a part of one, as a checklist."""

    id: Id
    title: str
    jurisdiction: str
    text: str
    """The law's name and number."""
    as_of: date
    """Day of the text that the checklist follows."""
    note: str = ""
    """Limits of the checklist."""
    items: tuple[Item, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        ids = [item.id for item in self.items]
        twice = sorted({each for each in ids if ids.count(each) > 1})
        if twice:
            raise ValueError(f"items {', '.join(twice)} are there twice")
        return self


class Topic(_Model):
    """Topic of a statement: what only a person can know."""

    question: Sentence
    """Contents that the statement needs."""


def regime_names() -> list[str]:
    """Return the ids of all regimes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "topics")


@functools.cache
def load_regime(name: str) -> Regime:
    """Return a regime by its id. Raises ParamsError for an unknown one."""
    if name not in regime_names():
        raise ParamsError(f"no regime {name}", fix=f"give one of {', '.join(regime_names())}")
    return parse_regime(_read(name), f"{name}.yaml")


def parse_regime(tree: Any, source: str) -> Regime:
    """Return a regime from parsed YAML. source: name for messages. Raises ParamsError."""
    try:
        return Regime.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ParamsError(f"{source}: {where}: {first['msg']}", fix="see docs/compliance.md") from None


@functools.cache
def topics() -> dict[str, Topic]:
    """Return the topics of statements."""
    return {name: Topic(question=text) for name, text in _read("topics").items()}


def _read(name: str) -> Any:
    import yaml

    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
