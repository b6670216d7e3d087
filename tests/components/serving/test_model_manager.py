"""Model versions in a replica: checked before they are swapped in, refused with a reason, canaries and shadows."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raypath.components.core.errors import DataError, Unavailable
from raypath.components.inference import golden_examples as examples
from raypath.components.inference import memory
from raypath.components.registry import aliases, cache
from raypath.components.serving.model_versions import ModelVersion, ReplicaPlan
from raypath.components.serving.replica import loader
from raypath.components.serving.replica import model_manager as versions
from raypath.components.serving.replica import model_pool as others
from raypath.components.serving.replica.model_manager import ModelManager
from raypath.components.serving.replica.status import health_status, replica_status
from raypath.components.tasks.catalog import task_type
from tests.components.broken import wrong
from tests.signed import cached_folder as folder_of
from tests.signed import signed_version
from tests.tiny_classifier import tiny_classifier

Make = Callable[..., ModelVersion]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Puts a version into this machine's cache, as a download would."""
    monkeypatch.setenv("RAYPATH_CACHE", str(tmp_path / "cache"))

    def made(
        version: int, name: str = "m", kind: str = "string", record: Callable[..., None] = examples.record
    ) -> ModelVersion:
        folder = Path(tiny_classifier(tmp_path / f"{name}-{version}", kind=kind, seed=version).uri)
        record(folder, 1)
        return signed_version(folder, name, version)

    return made


def held() -> ModelManager:
    return ModelManager("", task_type("text_classification", "string"), threads=1, max_models=2)


def test_a_version_takes_the_place_of_another(make: Make) -> None:
    one, two, replica = make(1), make(2), held()
    asyncio.run(replica.apply(ReplicaPlan(main=one)))
    first = replica.choose()
    asyncio.run(replica.apply(ReplicaPlan(main=two, fallback=one)))
    assert (first.version, replica.choose().version, replica.faults) == (1, 2, {})


def missing(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def altered(folder: Path) -> None:
    path = folder / "model.safetensors"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)


def linked(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def added(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"")


def unsigned(folder: Path) -> None:
    (folder / "signature.json").unlink()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (missing, "lacks its file tokenizer.json"),
        (altered, "has a file model.safetensors that is not the one that was registered"),
        (linked, "has a link or special file 'model.safetensors'"),
        (added, "has a file 'pytorch_model.bin' that was not registered"),
        (unsigned, "is not signed"),
    ],
)
def test_a_broken_version_never_answers_and_the_reason_is_told(make: Make, harm, told) -> None:
    one, two, replica = make(1), make(2), held()
    harm(folder_of(two))
    asyncio.run(replica.apply(ReplicaPlan(main=one)))
    asyncio.run(replica.apply(ReplicaPlan(main=two, fallback=one)))
    assert replica.choose().version == 1
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(replica.faults["main"].message())
    assert health_status(replica) == "degraded: version 2 was rejected"


def torn(folder: Path, threads: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("record", "told"), [(wrong, "its output for example . is off by"), (torn, "version 2 cannot")]
)
def test_one_that_was_registered_broken_is_refused_too(make: Make, record, told) -> None:
    one, two, replica = make(1), make(2, record=record), held()
    asyncio.run(replica.apply(ReplicaPlan(main=two, fallback=one)))
    assert replica.choose().version == 1
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(replica.faults["main"].message())


def test_a_new_replica_falls_back_and_one_without_anything_refuses(make: Make) -> None:
    one, two = make(1), make(2)
    missing(folder_of(two))
    replica = held()
    asyncio.run(replica.apply(ReplicaPlan(main=two, fallback=one)))
    assert (replica.choose().version, list(replica.faults)) == (1, ["main"])
    with pytest.raises(DataError, match=r"lacks its file tokenizer\.json"):
        asyncio.run(held().apply(ReplicaPlan(main=two)))


def test_a_version_that_would_take_all_memory_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, replica = make(1), make(2), held()
    asyncio.run(replica.apply(ReplicaPlan(main=one)))
    monkeypatch.setattr(memory, "free_memory", lambda: 1000.0)
    asyncio.run(replica.apply(ReplicaPlan(main=two, fallback=one)))
    assert replica.choose().version == 1
    assert "of memory and 0 MiB are free" in replica.faults["main"].reason


def test_a_model_needs_more_memory_than_its_files_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 1000.0 * memory.LOAD_FACTOR)
    memory.check_memory(1000)
    with pytest.raises(DataError, match="of memory"):
        memory.check_memory(1001)


def test_a_canary_answers_its_share_and_a_broken_one_none(make: Make) -> None:
    one, two, three, replica = make(1), make(2), make(3), held()
    asyncio.run(replica.apply(ReplicaPlan(main=one, canary=two, canary_percent=20)))
    share = sum(replica.choose().version == 2 for _ in range(4000)) / 4000
    assert 0.15 < share < 0.25
    assert replica_status(replica, None).canary == "version 2 serves 20% of requests"
    missing(folder_of(three))
    asyncio.run(replica.apply(ReplicaPlan(main=one, canary=three, canary_percent=100)))
    assert {replica.choose().version for _ in range(50)} == {1}
    assert "tokenizer.json" in replica_status(replica, None).canary
    assert health_status(replica) == "degraded: canary version 3 was rejected"


def test_where_there_is_no_room_the_longest_unused_makes_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    extra_models = (make(1, "b"), make(1, "c"), make(1, "d"))
    replica = ModelManager("", task_type("text_classification", "string"), threads=1)

    async def ask() -> None:
        await replica.apply(ReplicaPlan(main=make(1), extra_models=extra_models))
        for name in "bc":
            await replica.additional(name)
        # As if the two that are held filled the memory.
        monkeypatch.setattr(memory, "free_memory", lambda: 0.0 if len(replica.pool.loaded) > 1 else 1e12)
        await replica.additional("d")
        assert list(replica.pool.loaded) == ["c", "d"]
        monkeypatch.setattr(memory, "free_memory", lambda: 0.0)
        with pytest.raises(DataError, match="MiB are free"):
            await replica.additional("b")

    asyncio.run(ask())


def test_other_models_are_loaded_when_asked_for_and_the_longest_unused_goes(make: Make) -> None:
    main, others = make(1), [make(1, name) for name in "abc"]
    replica = held()

    async def ask() -> None:
        await replica.apply(ReplicaPlan(main=main, extra_models=tuple(others)))
        assert list(replica.pool.loaded) == []
        for name in ("a", "b", "a", "c"):
            assert (await replica.additional(name)).name == name
        assert list(replica.pool.loaded) == ["a", "c"]
        with pytest.raises(KeyError):
            await replica.additional("d")

    asyncio.run(ask())


def test_a_broken_version_of_another_model_leaves_the_old_one_in_service(make: Make) -> None:
    main, one, two, three, replica = make(1), make(1, "a"), make(2, "a"), make(3, "a"), held()
    missing(folder_of(two))

    async def ask() -> None:
        await replica.apply(ReplicaPlan(main=main, extra_models=(one,)))
        assert (await replica.additional("a")).version == 1
        await replica.apply(ReplicaPlan(main=main, extra_models=(two,)))
        assert (await replica.additional("a")).version == 1
        state = replica_status(replica, None)
        fault = state.fault("a")
        assert fault is not None
        assert (fault.version, fault.rejected, state.versions) == (2, True, {"m": 1, "a": 1})
        assert "tokenizer.json" in fault.reason
        assert health_status(replica) == "degraded: model a version 2 was rejected"
        await replica.apply(ReplicaPlan(main=main, extra_models=(three,)))
        assert ((await replica.additional("a")).version, replica.all_faults) == (3, [])

    asyncio.run(ask())


def test_a_model_that_fails_when_it_is_asked_for_is_not_tried_at_every_request(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, one, two, replica, tried, told = make(1), make(1, "a"), make(1, "b"), held(), [], []
    real = loader.load
    missing(folder_of(one))
    monkeypatch.setattr(versions, "load", lambda *args: (tried.append(args[1].name), real(*args))[1])
    monkeypatch.setattr(aliases, "set_tag", lambda *args: told.append(args[1:]))

    async def ask() -> None:
        await replica.apply(ReplicaPlan(main=main, extra_models=(one, two)))
        for _ in range(5):
            with pytest.raises(DataError, match="tokenizer"):
                await replica.additional("a")
        assert (await replica.additional("b")).version == 1
        assert (tried, list(replica.model_faults)) == (["m", "a", "b"], ["a"])
        assert told == [("a", 1, "raypath.rejected", "a version 1 lacks its file tokenizer.json")]
        shutil.rmtree(folder_of(one))
        monkeypatch.setattr(others, "RETRY_SECONDS", 0.0)
        replica.pool._failures.clear()
        make(1, "a")
        assert ((await replica.additional("a")).version, replica.all_faults) == (1, [])

    asyncio.run(ask())


def test_an_outage_of_the_registry_is_no_refusal(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, replica, told = make(1), ModelManager("http://127.0.0.1:9", held().task, threads=1), []
    one = one.model_copy(update={"source": ""})  # so that it has to be asked for
    monkeypatch.setattr(aliases, "set_tag", lambda *args: told.append(args))
    with pytest.raises(Unavailable):
        asyncio.run(replica.apply(ReplicaPlan(main=one)))
    assert (told, replica.faults["main"].rejected) == ([], False)
    assert "could not be fetched yet" in health_status(replica)


def test_a_copy_that_another_process_renewed_is_not_forgotten(make: Make) -> None:
    folder = folder_of(make(1))
    seen = cache.copy_id(folder)
    shutil.move(folder, folder.with_name("aside"))
    cache.discard_corrupt(folder, seen)
    shutil.copytree(folder.with_name("aside"), folder)
    cache.discard_corrupt(folder, seen)
    assert folder.is_dir()
    cache.discard_corrupt(folder, cache.copy_id(folder))
    assert not folder.exists()
