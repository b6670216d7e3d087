"""Versions of language models: opened with a streaming engine, and swapped as those of other models."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.async_engine import AsyncEngine
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.golden_answers import check_answers
from raypath.components.inference.memory import check_memory
from raypath.components.models.adapters import adapter_base, is_adapter
from raypath.components.models.chat_template import ChatTemplate
from raypath.components.models.metadata import read_metadata
from raypath.components.serving.model_versions import LoadedLanguageModel, ModelVersion
from raypath.components.serving.replica.loader import fetch
from raypath.components.serving.replica.model_manager import ModelManager
from raypath.components.tasks.catalog import check_served, check_task, load_task


class LanguageModelManager(ModelManager[LoadedLanguageModel]):
    """Versions of language models of a replica."""

    def _open(self, wanted: ModelVersion, promoted: bool) -> LoadedLanguageModel:
        version, folder = fetch(self.tracking, wanted, self.signing, promoted)
        return open_language_model(folder, wanted.name, version, self.threads, self.tasks)

    def _checked(self, found: LoadedLanguageModel) -> LoadedLanguageModel:
        """Return the version: conversations in and text out are the same for all."""
        return found


def open_language_model(
    folder: Path, name: str, version: int, threads: int, tasks: Collection[str] = ()
) -> LoadedLanguageModel:
    """Open and warm up a version from its folder, and check its golden answers. Raises DataError."""
    from raypath.components.inference.generation.selection.opening import open_engine
    from raypath.components.models.process import configure_process

    metadata = read_metadata(folder)
    check_task(metadata, tasks)
    check_served(metadata)
    task = load_task(metadata)
    if not task.generates_text:
        raise DataError(
            f"it is a {metadata.task}, and a language model is in service", fix="run a workflow that serves it"
        )
    base = adapter_base(folder) if is_adapter(folder) else folder
    check_memory(sum(path.stat().st_size for path in base.iterdir()))
    configure_process(threads)
    template, engine = ChatTemplate.load(folder), open_engine(folder, threads)
    prompt = template.encode_prompt([{"role": "user", "content": "?"}])
    engine.generate([prompt], SamplingSettings(max_new_tokens=2))
    check_answers(folder, engine, engine.precision)
    return LoadedLanguageModel(name, version, folder, metadata, task, template, AsyncEngine(engine))
