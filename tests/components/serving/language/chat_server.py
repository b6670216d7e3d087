"""A replica of tiny language models behind a real HTTP server on loopback, without Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.components.serving.params import ServeParams
from tests.byte_llama import save_byte_tokenizer, tiny_chat
from tests.components.serving.server import served_app
from tests.tiny_adapters import adapter_folder

LIMITS = ServeParams(
    threads=1, max_characters=2_000, max_body=100_000, request_timeout=20.0, max_queue_seconds=30.0, body_timeout=1.0,
    max_new_tokens=32, max_choices=4,
)  # fmt: skip
CARD = ModelMetadata(task="text_generation", labels=(), max_length=64)


def chat_model(folder: Path, seed: int = 0, **more: Any) -> Path:
    """A tiny chat model as a registered version's folder. Responses of random weights are sharp and long."""
    import torch
    from transformers import LlamaForCausalLM

    tiny_chat(folder, initializer_range=0.3, **more)
    if seed:
        torch.manual_seed(seed)
        model = LlamaForCausalLM.from_pretrained(folder)
        LlamaForCausalLM(model.config).save_pretrained(folder)
    write_metadata(folder, CARD)
    return folder


def adapter_models(home: Path, names: Sequence[str], **settings: Any) -> dict[str, Path]:
    """Adapters on one tiny chat model, `home`/base, as registered versions' folders. settings: of peft's LoraConfig."""
    import torch

    from raypath.components.inference.generation import golden_answers
    from raypath.components.inference.generation.transformers_engine import load_decoder
    from raypath.components.models.base_models import weights_digest

    base = chat_model(home / "base")
    model, found = load_decoder(base, torch.float32), {}
    card = CARD.model_copy(update={"base": str(base), "base_digest": weights_digest(base)})
    for seed, name in enumerate(names):
        found[name] = adapter_folder(home / name, model, seed, **settings)
        save_byte_tokenizer(found[name])
        write_metadata(found[name], card)
        golden_answers.record(found[name])
    return found


def language_service(folders: dict[str, Path], settings: ServeParams = LIMITS, access: str = "") -> Any:
    """The real LanguageService, which has these models as its versions 1; the first is the main one."""
    from raypath.components.inference.generation.selection.shared_bases import SharedBases
    from raypath.components.serving.model_versions import ModelVersion, ReplicaPlan, Role
    from raypath.components.serving.replica.language.deployment import LanguageService
    from raypath.components.serving.replica.language.loading import open_language_model
    from raypath.components.serving.spec import EndpointSpec

    name, *others = folders
    spec = EndpointSpec(
        name=name, task="text_generation", tracking="", url="", route="/", options={}, access=access,
        serve=settings.model_copy(update={"extra_models": tuple(others)}),
    )  # fmt: skip
    service: Any = LanguageService.func_or_class.__mro__[1](spec.model_dump())  # type: ignore[attr-defined]
    bases = service.models.bases = SharedBases()
    loaded = {
        each: open_language_model(folder, each, 1, threads=1, bases=bases if others else None)
        for each, folder in folders.items()
    }
    service.models.active[Role.MAIN] = loaded[name]
    extra = {each: ModelVersion(name=each, version=1) for each in others}
    service.models.pool.versions = extra
    service.models.pool.loaded.update((each, loaded[each]) for each in others)
    service.models.plan = ReplicaPlan(main=ModelVersion(name=name, version=1), extra_models=tuple(extra.values()))
    return service


@contextlib.contextmanager
def served_chat(service: Any) -> Iterator[str]:
    """The address of a service that answers while the block runs."""
    try:
        with served_app(service.__serve_build_asgi_app__()) as url:
            yield url
    finally:
        if service.auth is not None:
            service.auth.meter.close()
