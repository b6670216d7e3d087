"""Bill of materials of an exported model, `bom.cdx.json`: CycloneDX 1.6, which also describes models and data.

It names the model with its metrics and files, the base, the data, and the Python packages that made it, each with its
license where that is known. Specification: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from raypath.components.cards.facts import ModelFacts
from raypath.components.core.files import file_digest

FILE = "bom.cdx.json"
_REQUIREMENT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")
_SPDX = re.compile(r"[A-Za-z0-9.+() -]{1,100}")
"""Text that may be an SPDX expression; others are names of a license."""


def bill_of_materials(facts: ModelFacts, folder: Path) -> str:
    """Return the bill of materials of a model whose files are in a folder, as JSON."""
    base = _base(facts)
    data = {"type": "data", "bom-ref": "data", "name": facts.data} if facts.data else None
    packages = [_package(found) for found in _installed("raypath")]
    components = [each for each in (base, data, *packages) if each]
    made = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "tools": {"components": [{"type": "application", "name": "raypath", "version": version("raypath")}]},
            "component": _model(facts, folder, data is not None),
        },
        "components": components,
        "dependencies": [{"ref": "model", "dependsOn": [each["bom-ref"] for each in components]}],
    }
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _model(facts: ModelFacts, folder: Path, has_data: bool) -> dict[str, Any]:
    card: dict[str, Any] = {"modelParameters": {"task": facts.task} if facts.task else {}}
    if has_data:
        card["modelParameters"]["datasets"] = [{"ref": "data"}]
    measured = [
        {"type": name, "value": f"{value:.6g}", **_interval(facts, name)}
        for name, value in facts.metrics.items()
        if "/" not in name and not name.endswith(("_low", "_high"))
    ]
    if measured:
        card["quantitativeAnalysis"] = {"performanceMetrics": measured}
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": facts.name,
        **({"version": str(facts.version)} if facts.version else {}),
        "modelCard": card,
        "components": [
            {
                "type": "file",
                "bom-ref": f"file/{path.name}",
                "name": path.name,
                "hashes": [{"alg": "SHA-256", "content": file_digest(path)}],
            }
            for path in sorted(folder.iterdir())
            if path.is_file()
        ],
    }


def _interval(facts: ModelFacts, name: str) -> dict[str, Any]:
    low, high = facts.metrics.get(f"{name}_low"), facts.metrics.get(f"{name}_high")
    if low is None or high is None:
        return {}
    return {"confidenceInterval": {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"}}


def _base(facts: ModelFacts) -> dict[str, Any] | None:
    if not facts.base:
        return None
    licenses = {"licenses": [{"license": {"id": facts.license}}]} if facts.license else {}
    return {"type": "machine-learning-model", "bom-ref": "base", "name": facts.public_base, **licenses}


def _package(found: Distribution) -> dict[str, Any]:
    name, number = found.metadata["Name"], found.version
    purl = f"pkg:pypi/{_normal(name)}@{number}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": number, "purl": purl, **_licenses(found)}


def _licenses(found: Distribution) -> dict[str, Any]:
    """Return the license that a package states: an SPDX expression, or else the name in a classifier or a field."""
    expression = _field(found, "License-Expression")
    if _SPDX.fullmatch(expression):
        return {"licenses": [{"expression": expression}]}
    classifiers = found.metadata.get_all("Classifier") or []
    names = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: ")]
    stated = _field(found, "License").strip().partition("\n")[0]
    names = names or ([stated[:100]] if stated else [])
    return {"licenses": [{"license": {"name": name}} for name in names]} if names else {}


def _field(found: Distribution, name: str) -> str:
    return found.metadata[name] or "" if name in found.metadata else ""


def _installed(name: str) -> Iterator[Distribution]:
    """Yield the installed packages that a package requires, with its installed extras, and what these require."""
    waiting, seen = [name], {_normal(name)}
    while waiting:
        try:
            found = distribution(waiting.pop())
        except PackageNotFoundError:
            continue  # of an extra that is not installed, or of another platform
        if _normal(found.metadata["Name"]) != _normal(name):
            yield found
        for requirement in sorted(found.requires or ()):
            needed = _REQUIREMENT.match(requirement)
            of_extra = "extra ==" in requirement and found.metadata["Name"] != name
            if needed and not of_extra and _normal(needed[0]) not in seen:
                seen.add(_normal(needed[0]))
                waiting.append(needed[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
