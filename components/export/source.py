"""Model folder to export: its configuration, tokenizer and weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.models.adapters import CONFIG as ADAPTER_CONFIG
from raypath.components.models.adapters import is_adapter, open_model
from raypath.components.models.base_models import TOKENIZER_COPY, check_inside
from raypath.components.models.chat_template import ChatTemplate
from raypath.components.models.metadata import METADATA_FILE, ModelMetadata, read_metadata

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class Source:
    """A model folder: a transformers folder, or a LoRA adapter that names its base."""

    folder: Path

    def __post_init__(self) -> None:
        names = [name for name in ("config.json", ADAPTER_CONFIG) if (self.folder / name).is_file()]
        if not names:
            wanted = "a transformers folder with config.json, or a LoRA adapter"
            raise DataError(
                f"{self.folder} is not a model; wanted {wanted}", fix="give models:/NAME@ALIAS or such a folder"
            )
        check_inside(self.folder)

    @property
    def is_adapter(self) -> bool:
        """True for a folder that has a LoRA adapter and not the weights of its base."""
        return is_adapter(self.folder)

    @cached_property
    def metadata(self) -> ModelMetadata | None:
        """Metadata of a model that Raypath fine-tuned; None for another folder."""
        return read_metadata(self.folder) if (self.folder / METADATA_FILE).is_file() else None

    @cached_property
    def tokenizer(self) -> Any:
        """Fast tokenizer of the folder. Raises DataError."""
        import transformers

        try:
            found = transformers.AutoTokenizer.from_pretrained(str(self.folder), **_HERE)
        except (OSError, ValueError) as error:
            raise self._does_not_open("its tokenizer", error) from None
        if not getattr(found, "is_fast", False):
            raise DataError(f"{self.folder} has no fast tokenizer", fix="add its tokenizer.json")
        return found

    @cached_property
    def chat(self) -> ChatTemplate | None:
        """Chat template of the folder; None for a folder without one of its own."""
        if not self.tokenizer.chat_template:
            return None
        return ChatTemplate.load(self.folder)

    @cached_property
    def model(self) -> Any:
        """Model with the head that the configuration names, adapters merged, on the CPU in the stored precision."""
        if self.is_adapter:
            return open_model(self.folder, merged=True).eval()
        import transformers
        from safetensors import SafetensorError

        transformers.utils.logging.disable_progress_bar()
        kind: Any = getattr(transformers, self.class_name, None)
        if not _is_model(kind):
            what = f"{self.folder} names no model of transformers in its config.json"
            raise DataError(what, fix='set "architectures" there, such as ["LlamaForCausalLM"]')
        options = {"dtype": "auto", "use_safetensors": True, "output_loading_info": True, **_HERE}
        try:
            model, found = kind.from_pretrained(str(self.folder), **options)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise self._does_not_open("it", error) from None
        # A pooler that the file lacks has random weights, and no export reads it.
        lost = [name for name in sorted(found["missing_keys"]) if "pooler." not in name]
        if lost:
            what = f"{self.folder} lacks {len(lost)} weights of a {self.class_name}, such as {lost[0]}"
            raise DataError(what, fix="give a folder whose config.json and *.safetensors belong together")
        return model.eval()

    @property
    def class_name(self) -> str:
        """Class of transformers, such as LlamaForCausalLM; "" if the configuration names none."""
        if not (self.folder / "config.json").is_file():
            return type(self.model).__name__
        return str(next(iter(self._config().get("architectures") or ()), ""))

    def _config(self) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
            return dict(found)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._does_not_open("its config.json", error) from None

    def _does_not_open(self, what: str, error: Exception) -> DataError:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return DataError(f"{self.folder}: {what} does not open ({reason})", fix="give a folder that transformers opens")

    @property
    def model_type(self) -> str:
        """Architecture in transformers' words, such as llama; of an adapter that of its base."""
        if not (self.folder / "config.json").is_file():
            return str(self.model.config.model_type)
        return str(self._config().get("model_type", ""))

    def files(self, *patterns: str) -> list[Path]:
        """Files of the folder that match, sorted; those of the tokenizer are always among them."""
        return sorted({path for pattern in (*TOKENIZER_COPY, *patterns) for path in self.folder.glob(pattern)})


def _is_model(kind: Any) -> bool:
    import transformers

    return isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
