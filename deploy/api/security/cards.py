"""Cards of a registered model and of its data, from the records of the steps that made it."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from raypath.components.core.artifacts import Artifact, Dataset, Splits
from raypath.components.core.errors import DataError, StoreError
from raypath.deploy.api.models import located_model, model_facts
from raypath.deploy.api.project import home_folder, private_process
from raypath.deploy.store.audit.log import audited
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.lineage import steps_behind

if TYPE_CHECKING:
    from raypath.components.cards.data_facts import DataFacts, Statement
    from raypath.components.cards.facts import ModelFacts
    from raypath.components.inspection.report import InspectionReport
    from raypath.deploy.store.store import Record, Store

A = TypeVar("A", bound=Artifact)
MODEL, DATA = "MODEL_CARD.md", "DATA_CARD.md"
WHAT = "A model that was trained, evaluated and signed by Raypath."
USE = """```python
import raypath

model = raypath.load("models:/{name}/{version}")
```"""


def card(
    model: str,
    folder: str | Path,
    *,
    license: str = "",
    about: str = "",
    contact: str = "",
    home: str | Path | None = None,
) -> Path:
    """Write the cards of a registered model and of its data; returns the folder.

    `MODEL_CARD.md` and `DATA_CARD.md` have the form of the Hugging Face Hub, where they are called README.md, and
    `croissant.json` that of Croissant 1.0. They name columns, classes, counts and faults; no row's text, and no folder
    of this machine.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        folder: New or empty folder. It is complete, or unchanged after an error.
        license: SPDX name of the license of the data.
        about: Where the data comes from, and what it may be used for.
        contact: Whom to ask about the data.
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.

    Raises:
        DataError: Unknown model, altered files, or a version that was not made in this home.
        ParamsError: A folder that is not empty, or a license that is no SPDX name.

    Example:
        raypath.card("models:/topics@champion", "cards", license="CC-BY-4.0", contact="data@example.com")
    """
    from raypath.components.cards.data_facts import Statement, check_license
    from raypath.components.export.target import check_target

    check_license(license)
    target = Path(folder).expanduser()
    check_target(target)
    place = home_folder(home)
    name, version, files = located_model(model, place)
    store = open_store(place)
    steps = steps_behind(store, name, version)
    if "read" not in steps or "split" not in steps:
        raise DataError(f"{name} version {version} was not made in {place}", fix="run this where its records are")
    with private_process(), audited(place, "model.card", f"{name}/{version}", {"folder": str(target)}):
        facts = model_facts(name, version, files, place)
        _write(target, store, steps, facts, Statement(license, about, contact))
    return target


def _write(target: Path, store: Store, steps: dict[str, Record], facts: ModelFacts, said: Statement) -> None:
    from raypath.components.cards.croissant import FILE, croissant
    from raypath.components.cards.data_card import data_card
    from raypath.components.cards.model_card import model_card
    from raypath.components.export.target import new_target

    rows = _data(store, steps, said)
    use = USE.format(name=facts.name, version=facts.version)
    texts = {
        MODEL: model_card(facts, "hf", WHAT, use, _sections(store, steps, rows)),
        DATA: data_card(rows, facts.task),
        FILE: croissant(rows),
    }
    with new_target(target) as place:
        for name, text in texts.items():
            (place / name).write_text(text, encoding="utf-8")


def _data(store: Store, steps: dict[str, Record], said: Statement) -> DataFacts:
    from raypath.components.cards.data_facts import data_facts

    read, splits = _artifact(Dataset, steps["read"]), _artifact(Splits, steps["split"])
    made = datetime.fromtimestamp(steps["read"].started, UTC).date()
    # The cards have no files where these are gone, by retention or in a bucket.
    with suppress(StoreError):
        splits = store.local(splits)
    return data_facts(read, splits, made, _inspection(store, steps), said)


def _artifact(kind: type[A], record: Record) -> A:
    return kind.model_validate_json(json.dumps(record.artifact))


def _inspection(store: Store, steps: dict[str, Record]) -> InspectionReport | None:
    from raypath.components.inspection.report import InspectionReport

    found = _json(store, steps, "inspect")
    return InspectionReport.model_validate(found) if found else None


def _sections(store: Store, steps: dict[str, Record], rows: DataFacts) -> list[str]:
    from raypath.components.cards.model_sections import data_section, limits_section, training_section

    sections = [data_section(rows)]
    trained = steps.get("finetune") or steps.get("pretrain")
    if trained is not None:
        given = {key.partition(".")[2]: json.loads(value) for key, value in trained.key_inputs.items() if "." in key}
        chosen = steps["tune"].artifact.get("values", {}) if "tune" in steps else {}
        last = {"max_length": trained.artifact.get("max_length"), "seed": trained.key_inputs.get("seed")}
        settings = {**given, **chosen, **last}
        day = datetime.fromtimestamp(trained.started, UTC).date().isoformat()
        sections.append(training_section(settings, trained.seconds, day))
    return [*sections, limits_section(_json(store, steps, "evaluate"), rows)]


def _json(store: Store, steps: dict[str, Record], step: str) -> dict[str, Any]:
    """Return `report.json` of a step; {} if it is not here."""
    if step not in steps:
        return {}
    made = steps[step].artifact
    try:
        # The report alone: the parts of an evaluation include the model.
        folder = store.local(Artifact(uri=made["uri"], digest=made["digest"])).uri
        found: dict[str, Any] = json.loads(Path(folder, "report.json").read_bytes())
    except (OSError, ValueError, StoreError):
        return {}
    return found
