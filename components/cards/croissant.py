"""Description of a dataset in Croissant 1.0, the JSON-LD of MLCommons that catalogs of data read.

Specification: https://docs.mlcommons.org/croissant/docs/croissant-spec.html, with the terms of Croissant RAI 1.0 for
personal data and limits. Its files are named by their digests; they are not copied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from raypath.components.cards.data_facts import DataFacts, DataFile

FILE = "croissant.json"
_TERMS = (
    *("citeAs", "column", "conformsTo", "containedIn", "data", "dataType", "equivalentProperty", "extract", "field"),
    *("fileObject", "fileProperty", "fileSet", "format", "includes", "jsonPath", "key", "md5", "parentField", "path"),
    *("recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
    *("transform", "isLiveDataset"),
)
_LINKS = {"data": {"@type": "@json"}, "dataType": {"@type": "@vocab"}, "examples": {"@type": "@json"}}
_ELSEWHERE = {"conformsTo": "dct:conformsTo"}
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    **{
        name: _ELSEWHERE.get(name, {"@id": f"cr:{name}", **_LINKS[name]} if name in _LINKS else f"cr:{name}")
        for name in (*_TERMS, "examples")
    },
}
_TYPES = (
    (re.compile(r"u?int\d+"), "sc:Integer"),
    (re.compile(r"(half)?float\d*|double|decimal.*"), "sc:Float"),
    (re.compile(r"bool"), "sc:Boolean"),
    (re.compile(r"timestamp.*|date\d+.*"), "sc:DateTime"),
)
"""Types of schema.org by the name of an Arrow type; others are texts."""
_LIST = re.compile(r"(?:large_)?list<\w+: (.*)>")


def croissant(facts: DataFacts, files_at: str = "") -> str:
    """Return the description as JSON. files_at: URL or path of the folder with the files, ending in a slash."""
    stated = facts.statement
    described: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": facts.name,
        "description": stated.about or f"{facts.rows:,} rows of {facts.source}, divided into {_list(facts.splits)}.",
        "datePublished": facts.made.isoformat(),
        "version": "1.0.0",
        "distribution": [_file(each, files_at) for each in facts.files] + _file_sets(facts),
        "recordSet": [found for split in facts.splits for found in _records(facts, split)],
        **_personal(facts),
    }
    if stated.license:
        described["license"] = f"https://spdx.org/licenses/{stated.license}.html"
    if stated.contact:
        described["creator"] = {"@type": "sc:Organization", "name": stated.contact}
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _file(each: DataFile, files_at: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": each.name,
        "name": each.name,
        "contentUrl": f"{files_at}{each.name}",
        "contentSize": f"{each.bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": each.sha256,
    }


def _file_sets(facts: DataFacts) -> list[dict[str, Any]]:
    """Return a set for each split that has several files."""
    return [
        {
            "@type": "cr:FileSet",
            "@id": f"{split}-files",
            "name": f"{split}-files",
            "encodingFormat": "application/x-parquet",
            "includes": f"{split}/*.parquet",
        }
        for split in facts.splits
        if len(_of(facts, split)) > 1
    ]


def _records(facts: DataFacts, split: str) -> list[dict[str, Any]]:
    files = _of(facts, split)
    if not files:
        return []
    source = {"fileObject": {"@id": files[0].name}} if len(files) == 1 else {"fileSet": {"@id": f"{split}-files"}}
    names = facts.names()
    fields = [
        _field(f"{split}/{column}", names.get(column, column), kind, {**source, "extract": {"column": column}})
        for column, kind in files[0].types.items()
    ]
    return [{"@type": "cr:RecordSet", "@id": split, "name": split, "field": fields}]


def _field(place: str, name: str, kind: str, source: Mapping[str, Any]) -> dict[str, Any]:
    element = _LIST.fullmatch(kind)
    inner = element[1] if element else kind
    plain = next((made for pattern, made in _TYPES if pattern.fullmatch(inner)), "sc:Text")
    field = {"@type": "cr:Field", "@id": place, "name": name, "dataType": plain, "source": dict(source)}
    return {**field, "repeated": True} if element else field


def _personal(facts: DataFacts) -> dict[str, Any]:
    """Return what is known of personal data and of faults, in the terms of Croissant RAI."""
    found: dict[str, Any] = {}
    if facts.redaction is not None:
        kinds = ", ".join(facts.redaction.kinds)
        found["rai:dataPreprocessingProtocol"] = f"Personal data was replaced ({facts.redaction.replacement}): {kinds}."
    if facts.report is not None:
        counts = facts.report.personal_data
        found["rai:personalSensitiveInformation"] = [f"{kind}: {rows} rows" for kind, rows in counts.items()] or [
            "none found by patterns"
        ]
        found["rai:dataLimitations"] = [each.text for each in facts.report.findings]
    return found


def _of(facts: DataFacts, split: str) -> list[DataFile]:
    return [each for each in facts.files if each.name.startswith(f"{split}/")]


def _list(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({rows:,})" for name, rows in splits.items())
