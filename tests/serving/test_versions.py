"""Versions in a replica: checked before they are swapped in, refused with a reason, canaries and shadows."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.core.errors import DataError
from components.serving import cache, examples, versions
from components.serving.versions import Plan, Versions, Wanted
from components.tasks import task_type
from tests.tiny_classifier import tiny_classifier

Make = Callable[..., Wanted]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Puts a version into this machine's cache, as a download would."""
    monkeypatch.setenv("RAYPATH_CACHE", str(tmp_path / "cache"))

    def made(version: int, name: str = "m", kind: str = "string") -> Wanted:
        model = tiny_classifier(tmp_path / f"{name}-{version}", kind=kind, seed=version)
        folder = folder_of(Wanted(name=name, version=version, source="models:/x"))
        shutil.copytree(model.uri, folder)
        examples.record(folder, 1)
        return Wanted(name=name, version=version, source="models:/x")

    return made


def folder_of(wanted: Wanted) -> Path:
    return cache._place("", wanted.name, wanted.version, wanted.source, cache.cache_folder())


def held() -> Versions:
    return Versions("", task_type("text_classification", "string"), threads=1, kept=2)


def test_a_version_takes_the_place_of_another(make: Make) -> None:
    one, two, replica = make(1), make(2), held()
    asyncio.run(replica.take(Plan(main=one)))
    first = replica.choose()
    asyncio.run(replica.take(Plan(main=two, before=one)))
    assert (first.version, replica.choose().version, replica.faults) == (1, 2, {})


def missing(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def altered(folder: Path) -> None:
    path = folder / "model.safetensors"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)


def answers(folder: Path) -> None:
    known = json.loads((folder / examples.FILE).read_text())
    known["outputs"] = {name: [[x + 1.0 for x in row] for row in rows] for name, rows in known["outputs"].items()}
    (folder / examples.FILE).write_text(json.dumps(known))


def torn(folder: Path) -> None:
    known = json.loads((folder / examples.FILE).read_text())
    (folder / examples.FILE).write_text(json.dumps(known | {"files": {}}))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (missing, "its file tokenizer.json is missing"),
        (altered, "its file model.safetensors is not the one that was registered"),
        (answers, "its answer to recorded example . is off by"),
        (torn, "version 2 cannot be loaded"),
    ],
)
def test_a_broken_version_never_answers_and_the_reason_is_told(make: Make, harm, told) -> None:
    one, two, replica = make(1), make(2), held()
    harm(folder_of(two))
    asyncio.run(replica.take(Plan(main=one)))
    asyncio.run(replica.take(Plan(main=two, before=one)))
    assert replica.choose().version == 1
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(versions.describe(replica, None)["status"])


def test_a_new_replica_falls_back_and_one_without_anything_refuses(make: Make) -> None:
    one, two = make(1), make(2)
    missing(folder_of(two))
    replica = held()
    asyncio.run(replica.take(Plan(main=two, before=one)))
    assert (replica.choose().version, list(replica.faults)) == (1, ["main"])
    with pytest.raises(DataError, match=r"its file tokenizer\.json is missing"):
        asyncio.run(held().take(Plan(main=two)))


def test_a_version_that_would_take_all_memory_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, replica = make(1), make(2), held()
    asyncio.run(replica.take(Plan(main=one)))
    monkeypatch.setattr(versions, "free_memory", lambda: 1000.0)
    asyncio.run(replica.take(Plan(main=two, before=one)))
    assert replica.choose().version == 1
    assert "of memory and 0 MiB are free" in replica.faults["main"]


def test_a_canary_answers_its_share_and_a_broken_one_none(make: Make) -> None:
    one, two, three, replica = make(1), make(2), make(3), held()
    asyncio.run(replica.take(Plan(main=one, canary=two, percent=20)))
    share = sum(replica.choose().version == 2 for _ in range(4000)) / 4000
    assert 0.15 < share < 0.25
    assert "version 2 answers 20% of requests" in versions.describe(replica, None)["canary"]
    missing(folder_of(three))
    asyncio.run(replica.take(Plan(main=one, canary=three, percent=100)))
    assert {replica.choose().version for _ in range(50)} == {1}
    assert "tokenizer.json" in versions.describe(replica, None)["canary"]
    assert versions.describe(replica, None)["status"] == "ok"


def test_other_models_are_loaded_when_asked_for_and_the_longest_unused_goes(make: Make) -> None:
    main, others = make(1), [make(1, name) for name in "abc"]
    replica = held()

    async def ask() -> None:
        await replica.take(Plan(main=main, also=tuple(others)))
        assert (replica.names, list(replica.others)) == (["m", "a", "b", "c"], [])
        for name in ("a", "b", "a", "c"):
            assert (await replica.other(name)).name == name
        assert list(replica.others) == ["a", "c"]
        with pytest.raises(KeyError):
            await replica.other("d")

    asyncio.run(ask())
