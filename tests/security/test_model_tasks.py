"""Models whose metadata names a module: it is not imported, and a replica survives what does run."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.inference.local_model import LocalModel
from raypath.components.models.metadata import METADATA_FILE
from raypath.components.predict import PredictParams, predict
from raypath.components.serving.model_versions import ReplicaPlan, Role
from raypath.components.serving.replica.model_manager import ModelManager
from raypath.components.tasks import catalog
from raypath.components.tasks.catalog import task_type
from tests.signed import signed_version
from tests.tiny_classifier import tiny_classifier, tiny_dataset

PLANTED = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
raise SystemExit(3)
"""
REFUSED = "which is neither built in nor listed in serve.tasks, predict.tasks or"


def names_task(folder: Path, task: str) -> None:
    found = json.loads((folder / METADATA_FILE).read_text())
    (folder / METADATA_FILE).write_text(json.dumps(found | {"task": task}))


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on the search path that notes that it ran, and ends its process; returns the note's path."""
    place = tmp_path / "path"
    place.mkdir()
    (place / "planted.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(str(place))
    return place / "ran"


@pytest.fixture
def evil(tmp_path: Path, planted: Path) -> Path:
    """The folder of a model that names the planted module."""
    folder = Path(tiny_classifier(tmp_path / "evil").uri)
    names_task(folder, "planted:Task")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "planted", raising=False)


def test_a_replica_rejects_it_in_every_role_and_stays(tmp_path: Path, evil: Path, planted: Path) -> None:
    good = signed_version(Path(tiny_classifier(tmp_path / "good").uri), "m", 1)
    bad, other = signed_version(evil, "m", 2), signed_version(evil, "other", 1)
    replica = ModelManager("", task_type("text_classification"), threads=1)

    async def apply() -> None:
        await replica.apply(ReplicaPlan(main=bad, fallback=good))
        await replica.apply(ReplicaPlan(main=good, canary=bad, canary_percent=50, shadow=bad, extra_models=(other,)))
        with pytest.raises(DataError, match=REFUSED):
            await replica.additional("other")

    asyncio.run(apply())
    assert replica.choose().version == 1
    assert set(replica.faults) == {Role.CANARY, Role.SHADOW}
    assert all(REFUSED in fault.reason for fault in replica.all_faults)
    assert not planted.exists()


def test_a_listed_task_that_ends_its_process_leaves_the_replica_as_it_was(
    tmp_path: Path, evil: Path, planted: Path
) -> None:
    good, bad = signed_version(Path(tiny_classifier(tmp_path / "good").uri), "m", 1), signed_version(evil, "m", 2)
    replica = ModelManager("", task_type("text_classification"), threads=1, tasks=["planted:Task"])
    asyncio.run(replica.apply(ReplicaPlan(main=bad, fallback=good)))
    assert planted.exists()
    assert replica.choose().version == 1
    assert "SystemExit(3)" in replica.faults[Role.MAIN].reason


def test_code_that_ends_its_process_while_a_model_opens_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypath.components.tasks.text_classification import TextClassification

    class Ends(TextClassification):
        def record(self, outputs: object, batch: object) -> object:
            raise SystemExit(3)

    module = type(sys)("ends_module")
    module.Ends = Ends  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ends_module", module)
    folder = Path(tiny_classifier(tmp_path / "ends").uri)
    names_task(folder, "ends_module:Ends")
    good, bad = signed_version(Path(tiny_classifier(tmp_path / "good").uri), "m", 1), signed_version(folder, "m", 2)
    replica = ModelManager("", task_type("text_classification"), threads=1, tasks=["ends_module:Ends"])
    asyncio.run(replica.apply(ReplicaPlan(main=bad, fallback=good)))
    assert replica.choose().version == 1
    assert replica.faults[Role.MAIN].reason.startswith("SystemExit")


def test_load_and_predict_refuse_it(tmp_path: Path, evil: Path, planted: Path, make_context) -> None:
    with pytest.raises(DataError, match=REFUSED):
        LocalModel(evil, "evil", 0)
    data: Dataset = tiny_dataset(tmp_path / "data", tiny_classifier(tmp_path / "model"), rows=4)
    with pytest.raises(DataError, match=REFUSED):
        predict.fn(make_context("predict"), data, PredictParams(model=str(evil)))
    assert not planted.exists()


def test_an_operator_lists_a_task(evil: Path, planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(catalog.LISTED, "mine:Task, planted:Task")
    with pytest.raises(ParamsError, match=r"planted:Task cannot be imported \(SystemExit\(3\)\)"):
        LocalModel(evil, "evil", 0)
    assert planted.exists()


@pytest.mark.parametrize("task", ["os:path", "raypath:load", "tests.tiny:rows", "json", "planted", "a\nb:C", ":", ""])
def test_only_classes_of_tasks_that_are_loaded_anyway_may_be_named(task: str) -> None:
    from raypath.components.models.metadata import ModelMetadata

    with pytest.raises(DataError) as found:
        catalog.check_task(ModelMetadata(task=task, labels=("a",), max_length=8))
    assert "\n" not in str(found.value)


def test_built_in_tasks_need_no_list() -> None:
    from raypath.components.models.metadata import ModelMetadata

    for task in (*catalog.TASKS, *catalog.TASKS.values()):
        catalog.check_task(ModelMetadata(task=task, labels=("a",), max_length=8))
