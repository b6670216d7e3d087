"""Models that are adapters on one base: one engine answers for all, `model` in a request picks the adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.selection.shared_bases import AdapterEngine, SharedBases
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from raypath.components.models.adapters import WEIGHTS
from raypath.components.models.chat_template import ChatTemplate
from raypath.components.serving.model_versions import ModelVersion, ReplicaPlan, Role
from raypath.components.serving.replica.language import loading
from raypath.components.serving.replica.language.loading import open_language_model
from raypath.components.tasks.text_generation import TextGeneration
from tests.components.serving.language.chat_server import adapter_models, language_service, served_chat

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
NAMES = ("one", "two", "three")
ASK = {"messages": [{"role": "user", "content": "What is the time?"}], "max_tokens": 12, "temperature": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return adapter_models(tmp_path_factory.mktemp("by-name"), NAMES)


@pytest.fixture(scope="module")
def several(folders: dict[str, Path]) -> Iterator[SimpleNamespace]:
    service = language_service(folders)
    with served_chat(service) as url, httpx.Client(base_url=url, timeout=20.0, trust_env=False) as client:
        yield SimpleNamespace(service=service, http=client)


def engine_of(several: SimpleNamespace, name: str) -> AdapterEngine:
    found = {model.name: model.engine for model in several.service._loaded()}[name]
    assert isinstance(found, AdapterEngine)
    return found


def merged_text(folder: Path) -> str:
    """The answer of the merged model, opened on its own."""
    template = ChatTemplate.load(folder)
    prompt = template.encode_prompt(ASK["messages"])
    engine = TransformersEngine.open(folder, device="cpu")
    return engine.generate([prompt], SamplingSettings(max_new_tokens=12))[0].text


def asked(several: SimpleNamespace, name: str) -> str:
    found = several.http.post("/v1/chat/completions", json=ASK | {"model": name})
    assert found.status_code == 200, found.text
    assert found.json()["model"] == name
    return str(found.json()["choices"][0]["message"]["content"])


def test_one_engine_answers_each_name_as_the_merged_model_does(
    several: SimpleNamespace, folders: dict[str, Path]
) -> None:
    engines = {id(engine_of(several, name).shared) for name in NAMES}
    assert len(engines) == len(several.service.models.bases.digests) == 1
    wanted = {name: merged_text(folder) for name, folder in folders.items()}
    assert len(set(wanted.values())) == 3
    order = [name for name in NAMES for _ in range(3)]
    with ThreadPoolExecutor(9) as pool:
        found = list(pool.map(lambda name: asked(several, name), order))
    assert found == [wanted[name] for name in order]


def test_models_lists_them_with_their_base(several: SimpleNamespace, folders: dict[str, Path]) -> None:
    found = several.http.get("/v1/models").json()["data"]
    base = str(folders["one"].parent / "base")
    assert [(each["id"], each["parent"]) for each in found] == [(name, base) for name in NAMES]
    assert several.http.get("/v1/models/two").json()["parent"] == base


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_an_unknown_adapter(several: SimpleNamespace, path: str) -> None:
    more = {"prompt": "x"} if path == "/v1/completions" else ASK
    found = several.http.post(path, json={**more, "model": "four"})
    error = found.json()["error"]
    assert (found.status_code, error["code"], error["type"]) == (404, "model_not_found", "not_found_error")
    assert error["message"] == "no model four; served models: one, two, three"


def test_versions_come_and_go_in_the_same_base(folders: dict[str, Path]) -> None:
    bases = SharedBases()
    first, second = (open_language_model(folders[name], "m", n, 1, bases=bases) for n, name in ((1, "one"), (2, "two")))
    assert isinstance(first.engine, AdapterEngine)
    assert isinstance(second.engine, AdapterEngine)
    assert first.engine.shared is second.engine.shared

    async def swap() -> list[int]:
        stream = first.engine.stream([5, 6, 7], SamplingSettings(max_new_tokens=20, ignore_stop=True))
        ids = (await anext(stream)).ids
        await second.engine.close()
        return ids + [token async for piece in stream for token in piece.ids]

    assert len(asyncio.run(swap())) == 20, "a response in flight goes on while another version leaves"
    assert len(bases.digests) == 1
    first.engine.stop()
    first.engine.stop()
    assert not bases.digests, "the last one closes the base"


def test_a_version_that_is_rejected_leaves_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    for path in folders["one"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / WEIGHTS).write_bytes((folders["two"] / WEIGHTS).read_bytes())
    bases = SharedBases()
    kept = bases.open(folders["three"], "kept")
    assert kept is not None
    with pytest.raises(DataError, match=r"its answer to example \d is off by"):
        open_language_model(tmp_path, "m", 2, 1, bases=bases)
    engine: Any = kept.engine
    assert list(engine._adapters._ranks) == [kept.adapter]
    kept.stop()
    assert not bases.digests


def test_adapters_that_rows_cannot_take_are_merged(tmp_path: Path) -> None:
    folder = adapter_models(tmp_path, ["dora"], use_dora=True)["dora"]
    bases = SharedBases()
    found = open_language_model(folder, "m", 1, 1, bases=bases)
    assert not isinstance(found.engine, AdapterEngine)
    assert not bases.digests
    asyncio.run(found.engine.close())


def test_an_adapter_that_the_engine_does_not_take_is_merged(folders: dict[str, Path], tmp_path: Path) -> None:
    """One that has a weight of the base besides its low-rank matrices."""
    from safetensors.torch import load_file, save_file

    for path in folders["one"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / WEIGHTS)
    more = {"base_model.model.model.norm.weight": torch.ones(64)}
    save_file(weights | more, tmp_path / WEIGHTS, metadata={"format": "pt"})
    bases = SharedBases()
    assert bases.open(tmp_path, "m") is None
    assert not bases.digests, "the base is not kept for nobody"


def test_a_promotion_loads_the_new_version_into_the_same_base(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manager of a replica: a main model and an additional one, and a new version of each."""
    versions = {("a", 1): "one", ("b", 1): "two", ("a", 2): "three", ("b", 2): "one"}

    def fetch(_: str, wanted: ModelVersion, *__: Any) -> tuple[int, Path]:
        return wanted.version, folders[versions[wanted.name, wanted.version]]

    def plan(main: int, extra: int) -> ReplicaPlan:
        more = ModelVersion(name="b", version=extra)
        return ReplicaPlan(main=ModelVersion(name="a", version=main), extra_models=(more,))

    monkeypatch.setattr(loading, "fetch", fetch)
    manager = loading.LanguageModelManager("", TextGeneration, threads=1, separate_adapters=True)
    settings = SamplingSettings(max_new_tokens=8, ignore_stop=True)

    async def scene() -> None:
        await manager.apply(plan(1, 1))
        first, other = manager.active[Role.MAIN], await manager.additional("b")
        stream = first.engine.stream([5, 6, 7], settings)
        begun = (await anext(stream)).ids
        await manager.apply(plan(2, 2))
        main, extra = manager.active[Role.MAIN], await manager.additional("b")
        assert (main.version, extra.version) == (2, 2)
        engines = [each.engine for each in (first, other, main, extra)]
        assert all(isinstance(each, AdapterEngine) for each in engines)
        assert len({id(each.engine) for each in engines}) == 1
        rest = [token async for piece in stream for token in piece.ids]
        again = [token async for piece in extra.engine.stream([5, 6, 7], settings) for token in piece.ids]
        assert begun + rest == again, "a response in flight ends on its version"
        for each in (first, other, main, extra):
            await each.engine.close()

    asyncio.run(asyncio.wait_for(scene(), 60))
    assert manager.bases is not None
    assert not manager.bases.digests
