"""LoRA adapters that are stored without their base model, in the layout of peft.

The folder has adapter_model.safetensors and adapter_config.json, besides tokenizer and raypath.json. The latter names
the base and its digest.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.models.base_models import ADAPTER, base_folder, build_model, original_base, weights_digest
from raypath.components.models.language_models import CAUSAL, SEQ2SEQ, is_encoder_decoder
from raypath.components.models.metadata import METADATA_FILE, read_metadata

if TYPE_CHECKING:
    from raypath.components.models.trainable.lora import LoraSettings

WEIGHTS, CONFIG = "adapter_model.safetensors", ADAPTER
PREFIX = "base_model.model."
"""Prefix of names in peft's files."""


def is_adapter(folder: Path) -> bool:
    """Return True for a folder with adapters alone."""
    return (folder / CONFIG).is_file() and not (folder / "model.safetensors").is_file()


def save_adapter(model: Any, folder: Path, full_tensor: Callable[[Any], Any], writes: bool, base: str = "") -> None:
    """Write the adapters of a model to a folder, as peft does.

    full_tensor: gathers a weight that is sharded; every process has to call this, the one with `writes` writes. base:
    the base model, for readers without Raypath.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    own = {name: full_tensor(weight) for name, weight in model.named_parameters() if "lora_" in name}
    if not writes:
        return
    found = get_peft_model_state_dict(model, state_dict=own, save_embedding_layers=False)
    weights = {PREFIX + name: weight.float().contiguous() for name, weight in found.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    config = _plain(model.peft_config["default"].to_dict())
    config |= {"inference_mode": True, "base_model_name_or_path": base.removeprefix("hf://").partition("@")[0]}
    kind = "SEQ_2_SEQ_LM" if getattr(model.config, "is_encoder_decoder", False) else "CAUSAL_LM"
    config |= {"task_type": kind, "peft_type": "LORA"}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def names_base(folder: Path) -> bool:
    """Return True for a folder with adapters alone, or with a copy of the base that its metadata names."""
    if is_adapter(folder) or not (folder / METADATA_FILE).is_file():
        return is_adapter(folder)
    digest = read_metadata(folder).base_digest
    return bool(digest) and digest == weights_digest(folder)


def is_nameable(base: str) -> bool:
    """Return True if adapters can name this base: a model that was trained further has no URI that lasts."""
    return bool(base) and original_base(base) == base


def continue_adapter(model: Any, folder: Path, settings: LoraSettings) -> None:
    """Load adapters from a folder into a model that has adapters with these settings, to be trained further.

    Raises ParamsError for adapters with other settings.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    stored = stored_settings(folder)
    if stored.shape != settings.shape:
        what = f"the adapters to start from have rank {stored.rank} and alpha {stored.alpha}"
        fix = f"set finetune.lora={stored.rank}, lora_alpha={stored.alpha}, dora={stored.dora}, rslora={stored.rslora}"
        raise ParamsError(what, fix=f"{fix}; or finetune.lora=0, which trains the merged model")
    weights = {name.removeprefix(PREFIX): weight for name, weight in load_file(folder / WEIGHTS).items()}
    found = set_peft_model_state_dict(model, weights)
    absent = [name for name in found.missing_keys if "lora_" in name]
    if absent or found.unexpected_keys:
        first = next(iter(absent or found.unexpected_keys))
        what = f"the adapters in {folder} are of other layers than those that are trained, such as {first}"
        raise DataError(what, fix="set finetune.frozen_layers as it was in their training")


def stored_settings(folder: Path) -> LoraSettings:
    """Read the settings of adapters in a folder."""
    from raypath.components.models.trainable.lora import LoraSettings

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    names = ("r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora")
    return LoraSettings(*(config[name] for name in names))


def open_model(folder: Path, merged: bool = True) -> Any:
    """Open the language model of a folder in float32, for inference: a complete model, or adapters on its base.

    merged: the adapters are added to the base's matrices, which makes them an ordinary model; else a PeftModel is
    returned. Both give the same outputs. Raises DataError for a base that is not the one that the adapters were trained
    on.
    """
    if not is_adapter(folder):
        return build_model(_auto_of(folder), str(folder), (), None).eval()
    from raypath.components.models.trainable.quantized import quiet_bitsandbytes

    quiet_bitsandbytes()
    try:
        from peft import PeftModel
    except ImportError:
        raise ParamsError("adapters need the Python package peft", fix="pip install 'raypath[lora]'") from None
    base = build_model(_auto_of(folder), str(adapter_base(folder)), (), None)
    with warnings.catch_warnings():
        # peft reads a property that transformers has renamed.
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(base, folder)
    return (model.merge_and_unload() if merged else model).eval()


def _auto_of(folder: Path) -> str:
    """Return the transformers Auto class of a language model's folder."""
    return SEQ2SEQ if is_encoder_decoder(folder) else CAUSAL


def adapter_base(folder: Path) -> Path:
    """Return the folder of the base model that adapters in `folder` belong to. Raises DataError for another one."""
    metadata = read_metadata(folder)
    base = base_folder(metadata.base)
    if weights_digest(base) != metadata.base_digest:
        what = f"the adapters in {folder} were trained on another base than {metadata.base} is now"
        raise DataError(what, fix="restore that base, or train the adapters again")
    return base


def base_identity(folder: Path) -> dict[str, str]:
    """Fields of ModelMetadata that name the base of adapters. folder: what they were trained on, or started from."""
    if not is_adapter(folder):
        return {"base_digest": weights_digest(folder)}
    metadata = read_metadata(folder)
    return {"base": metadata.base, "base_digest": metadata.base_digest}


def _plain(value: Any) -> Any:
    """Convert the configuration of peft to values of JSON."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.value if hasattr(value, "value") else value
