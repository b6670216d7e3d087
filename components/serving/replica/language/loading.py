"""Versions of language models: opened with a streaming engine, and swapped as those of other models."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from time import perf_counter
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.async_engine import AsyncEngine
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.golden_answers import check_answers
from raypath.components.inference.generation.selection.choice import read_engine_choice
from raypath.components.inference.generation.selection.shared_bases import AdapterEngine, SharedBases
from raypath.components.inference.generation.vllm.options import VllmOptions
from raypath.components.inference.memory import check_memory
from raypath.components.models.adapters import adapter_base, is_adapter
from raypath.components.models.chat_template import ChatTemplate
from raypath.components.models.metadata import read_metadata
from raypath.components.privacy.keys import key_folder
from raypath.components.privacy.redactor import redactor_of
from raypath.components.serving.model_versions import LoadedLanguageModel, ModelVersion, Pace
from raypath.components.serving.replica.loader import fetch
from raypath.components.serving.replica.model_manager import ModelManager
from raypath.components.tasks.catalog import check_served, check_task, load_task

log = logging.getLogger("ray.serve")
PROMPT_TOKENS, NEW_TOKENS = 64, 9
"""Tokens of the request by which the speed of a version is measured."""


class LanguageModelManager(ModelManager[LoadedLanguageModel]):
    """Versions of language models of a replica. With `separate_adapters` those that are adapters share their base."""

    bases: SharedBases | None = None
    vllm: VllmOptions = VllmOptions()

    def _open(self, wanted: ModelVersion, promoted: bool) -> LoadedLanguageModel:
        version, folder = fetch(self.tracking, wanted, self.signing, promoted)
        if self.separate_adapters and self.bases is None:
            self.bases = SharedBases(self.vllm)
        more = self.bases, self.vllm, self.signing
        return open_language_model(folder, wanted.name, version, self.threads, self.tasks, *more)

    def _checked(self, found: LoadedLanguageModel) -> LoadedLanguageModel:
        """Return the version: conversations in and text out are the same for all."""
        return found


def open_language_model(
    folder: Path,
    name: str,
    version: int,
    threads: int,
    tasks: Collection[str] = (),
    bases: SharedBases | None = None,
    vllm: VllmOptions | None = None,
    signing: Path | None = None,
) -> LoadedLanguageModel:
    """Open and warm up a version from its folder, and check its golden answers. Raises DataError.

    bases: Open bases, which versions that are adapters share; None opens each version in an engine of its own. vllm:
    for vLLM, if it is the engine. signing: Folder beside which the keys of redactions are.
    """
    from raypath.components.models.process import configure_process

    metadata = read_metadata(folder)
    check_task(metadata, tasks)
    check_served(metadata)
    task = load_task(metadata)
    task.redactor = redactor_of(metadata.redaction, key_folder(signing))
    if not task.generates_text:
        raise DataError(
            f"it is a {metadata.task}, and a language model is in service", fix="run a workflow that serves it"
        )
    configure_process(threads)
    template = ChatTemplate.load(folder)
    prompt = template.encode_prompt([{"role": "user", "content": "?"}])
    shared = bases.open(folder, f"{name}-{version}") if bases is not None else None
    engine: Any = shared or _engine(folder, threads, vllm)
    try:
        engine.generate([prompt], SamplingSettings(max_new_tokens=2))
        check_answers(folder, engine, engine.precision)
        pace = _measure(engine, prompt)
    except BaseException:
        if shared is not None:
            shared.stop()
        raise
    if shared is not None:
        _report_shared(folder, name, shared, pace)
    return LoadedLanguageModel(name, version, folder, metadata, task, template, shared or AsyncEngine(engine), pace)


def _report_shared(folder: Path, name: str, engine: AdapterEngine, pace: Pace) -> None:
    """Log how fast a model is on a shared base, and what was measured for it merged when it was registered."""
    found = f"{name} shares its base: {engine.engine.name} in {engine.precision}, {pace.response:.0f} tokens a second"
    choice = read_engine_choice(folder)
    line = next((each for each in choice.table if each.engine == choice.engine), None) if choice else None
    if line is not None:
        fix = "serve.merge_adapters=true takes that, with a copy of the base for each model"
        found += f"; merged, {line.engine} had {line.alone:.0f} when it was registered ({fix})"
    log.info(found)


def _engine(folder: Path, threads: int, vllm: VllmOptions | None) -> Any:
    """Open a version in the engine that was chosen for it, merged with its base if it is an adapter."""
    from raypath.components.inference.generation.selection.opening import open_engine

    base = adapter_base(folder) if is_adapter(folder) else folder
    check_memory(sum(path.stat().st_size for path in base.iterdir()))
    return open_engine(folder, threads, vllm=vllm)


def _measure(engine: Any, prompt: list[int]) -> Pace:
    """Return the speed of one request, without the service."""
    size = max(min(PROMPT_TOKENS, engine.context - NEW_TOKENS), 1)
    seconds = []
    for new_tokens in (1, NEW_TOKENS):
        # The prompts begin unlike one another: the second is not in the prefix cache.
        longer = (prompt[new_tokens % len(prompt) :] + prompt * -(-size // len(prompt)))[:size]
        began = perf_counter()
        engine.generate([longer], SamplingSettings(max_new_tokens=new_tokens, ignore_stop=True))
        seconds.append(max(perf_counter() - began, 1e-6))
    spent = max(seconds[1] - seconds[0], seconds[1] / NEW_TOKENS)
    return Pace(size / seconds[0], (NEW_TOKENS - 1) / spent)
