"""Head that the files of a base model have already, such as that of a classifier from a model hub.

It is kept if it has the labels of the data in the same order; otherwise its outputs would stand for other labels, and
the model gets a new head.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.models.process import MODELS, import_large

SEQUENCE = "AutoModelForSequenceClassification"


def heads_to_replace(auto: str, folder: Path, config: Any, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the modules of a stored head that does not fit the labels; () if there is none.

    config: the stored configuration, unchanged.
    """
    if auto != SEQUENCE:
        return ()
    model = empty_model(auto, config)
    stored = {name.partition(".")[0] for name, _ in stored_weights(folder)}
    heads = tuple(name for name, _ in model.named_children() if name != model.base_model_prefix and name in stored)
    fits = type(model).__name__ in (config.architectures or ()) and _labels(config) == labels
    return () if fits else heads


def head_warning(auto: str, folder: Path, labels: tuple[str, ...]) -> str:
    """Return a warning if the head of a base model is replaced, "" otherwise."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if not heads_to_replace(auto, folder, config, labels):
        return ""
    had = ", ".join(_labels(config)[:5])
    return f"the base model has a head of its own, with the labels {had}; it is replaced by a new one for the data's"


def empty_model(auto: str, config: Any) -> Any:
    """Build a model without weights, for the names of its parameters."""
    import_large(*MODELS)
    import torch
    import transformers

    with torch.device("meta"):
        return getattr(transformers, auto).from_config(config, trust_remote_code=False)


def stored_weights(folder: Path) -> Iterator[tuple[str, Path]]:
    """List (name, file) of every weight in a folder without reading weights. Raises DataError for a corrupt file."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                names = list(file.keys())
        except SafetensorError:
            raise DataError(
                f"base model {folder} does not open ({path.name} is corrupt)", fix="copy it again"
            ) from None
        yield from ((name, path) for name in names)


def weights_without(folder: Path, heads: tuple[str, ...]) -> dict[str, Any]:
    """Read the weights of a folder except those of these modules."""
    from safetensors import safe_open

    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names = (name for name in file.keys() if name.partition(".")[0] not in heads)  # noqa: SIM118
            found.update((name, file.get_tensor(name)) for name in names)
    return found


def _labels(config: Any) -> tuple[str, ...]:
    return tuple(str(config.id2label[n]) for n in sorted(config.id2label))
