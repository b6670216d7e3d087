"""Conversion of weights to safetensors: `python -m raypath.components.models.conversion.to_safetensors FOLDER`.

pytorch_model*.bin is a pickle, which can execute code: it is read with `weights_only=True`, which allows tensors only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, RaypathError

OUT = "model.safetensors"


def convert(folder: Path) -> Path:
    """Write model.safetensors beside the old files, which stay. Raises DataError for files that are not weights."""
    import pickle  # nosec
    import zipfile

    import torch
    from safetensors.torch import save_file

    paths = sorted(folder.glob("pytorch_model*.bin"))
    if not paths:
        raise DataError(f"{folder} has no pytorch_model*.bin", fix="name the folder of a base model")
    if any(folder.glob("*.safetensors")):
        raise DataError(f"{folder} has *.safetensors already", fix="use the folder as it is")
    weights: dict[str, Any] = {}
    for path in paths:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile):
            raise DataError(f"{path} has more than weights, or is damaged", fix="download it again") from None
        weights |= {name: tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}
    # safetensors stores no tensor that shares memory with another.
    save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, folder / OUT, {"format": "pt"})
    return folder / OUT


def main() -> int:
    """Convert the folder that is named on the command line."""
    try:
        print(convert(Path(sys.argv[1])))
    except (RaypathError, IndexError) as error:
        print(error if isinstance(error, RaypathError) else "name the folder of a base model", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
