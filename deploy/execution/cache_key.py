"""Cache keys of steps, and explanations of why a step has to run.

A key is the digest of the step's inputs: component path and version, seed, settings, digests of the input artifacts,
fingerprints of the files that settings point at, and the source code. An equal key means an equal result.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from typing import Any

from raypath.components.core.artifacts import Artifact
from raypath.components.core.errors import ParamsError
from raypath.components.core.graph import Graph, Node, Ref
from raypath.components.core.params import Params
from raypath.components.core.uris import BUCKETS, fingerprint, scheme
from raypath.components.data.sources.files import check_exists
from raypath.components.data.sources.object_storage import objects_fingerprint
from raypath.components.models import bf16
from raypath.deploy.execution.code_digest import CLASS_PATH, source_digest, source_modules

INPUT = "input "
"""How the names of key inputs begin that are digests of input artifacts."""
FILES = "files of "
"""How the names of key inputs begin that are fingerprints of files."""


def settings_digest(graph: Graph) -> str:
    """Return the digest of the workflow's name and settings, by which a run is found again and resumed."""
    return hashlib.sha256(json.dumps([graph.workflow, graph.params.flat()]).encode()).hexdigest()


def check_steps(graph: Graph, fresh: Collection[str]) -> None:
    """Raise ParamsError for a step of --fresh that the graph does not have."""
    names = [node.name for node in graph.nodes]
    for step in fresh:
        if step not in names:
            near = difflib.get_close_matches(step, names, n=1)
            raise ParamsError(
                f"--fresh {step}: no such step",
                fix=f"did you mean {near[0]}?" if near else f"its steps are {', '.join(names)}",
            )


def check_sources(graph: Graph) -> None:
    """Raise DataError for the first path in the settings, of data or of a base model, where nothing exists."""
    for node in graph.nodes:
        for params in (argument for argument in node.arguments if isinstance(argument, Params)):
            check_exists(params.sources())


def resolve(ref: Ref, done: Mapping[str, Artifact]) -> Artifact:
    """Return the artifact that a reference stands for; its step must be in `done`."""
    found = done[ref.step]
    for name in ref.fields:
        found = getattr(found, name)
    return found


def resolve_arguments(node: Node, done: Mapping[str, Artifact]) -> list[Any]:
    """Return the arguments of a step with references replaced by artifacts."""
    return [resolve(a, done) if isinstance(a, Ref) else a for a in node.arguments]


def cache_key_inputs(node: Node, graph: Graph, done: Mapping[str, Artifact]) -> dict[str, str]:
    """Return everything that determines a step's result, by name. Its input artifacts must be in `done`."""
    references = zip(node.component.arguments, node.arguments, strict=True)
    digests = {
        f"{INPUT}{argument.name}": resolve(value, done).digest
        for argument, value in references
        if isinstance(value, Ref)
    }
    return own_key_inputs(node, graph) | digests


def own_key_inputs(node: Node, graph: Graph) -> dict[str, str]:
    """Return the key inputs that are known before any step has run: all but the digests of input artifacts."""
    inputs = {
        "component": node.component.path,
        "version": str(node.component.version),
        "seed": str(graph.seed),
        "source": source_digest(node.component.fn.__module__),
    }
    if os.environ.get(bf16.VARIABLE) and bf16.__name__ in source_modules(node.component.fn.__module__):
        inputs[bf16.VARIABLE] = os.environ[bf16.VARIABLE]
    for argument, value in zip(node.component.arguments, node.arguments, strict=True):
        if value is not None and not isinstance(value, Ref):
            inputs |= settings_of(argument.name, value, node.name)
    return inputs


def settings_of(argument: str, params: Params, step: str) -> dict[str, str]:
    """Return the key inputs of one Params argument: settings, code of named classes, fingerprints of named files."""
    # A component's only Params are shown under the step's name, as on the command line.
    prefix = step if argument == "params" else argument
    flat = params.flat()
    found = {f"{prefix}.{key}": json.dumps(value) for key, value in flat.items()}
    # Classes named by a setting, such as a task of the user's own.
    classes = [value for value in flat.values() if isinstance(value, str) and CLASS_PATH.fullmatch(value)]
    found |= {f"code of {path}": source_digest(path.partition(":")[0]) for path in classes}
    query = getattr(params, "query", "")
    return found | {f"{FILES}{uri}": _fingerprint(uri, query) for uri in params.sources()}


def is_setting(name: str) -> bool:
    """Return True when a key input is a setting (`finetune.lr`), not a digest (`input splits`, `files of a.csv`)."""
    return "." in name.partition(" ")[0]


def _fingerprint(uri: str, query: str) -> str:
    """Return a value that changes with the content behind a URI. Buckets and servers of databases are queried."""
    if scheme(uri) == "postgresql://":
        from raypath.components.data.formats.sql_reader import rows_fingerprint

        return rows_fingerprint(uri, query)
    return objects_fingerprint(uri) if scheme(uri) in BUCKETS else fingerprint(uri)


def compute_key(inputs: Mapping[str, str]) -> str:
    """Return the cache key, 64 hex digits."""
    return hashlib.sha256(json.dumps(dict(inputs), sort_keys=True).encode()).hexdigest()


def explain_change(inputs: Mapping[str, str], before: Mapping[str, str] | None) -> str:
    """Describe in one line what changed since the step last ran; three changes at most."""
    if before is None:
        return "it has not run before"
    changed = [name for name in {**before, **inputs} if before.get(name) != inputs.get(name)]
    # Files of another URI: the setting that names them is in the list.
    changed = [name for name in changed if not name.startswith(FILES) or (name in before and name in inputs)] or changed
    if not changed:
        return "its record is gone"
    return ", ".join(_change(name, before.get(name), inputs.get(name)) for name in sorted(changed)[:3])


def _change(name: str, old: str | None, new: str | None) -> str:
    if name in ("component", "version", "seed") or is_setting(name):
        return f"{name} {_short(old)} -> {_short(new)}"
    return {"source": "its code changed"}.get(name, f"{name} changed")


def _short(value: str | None) -> str:
    text = "none" if value is None else value.strip('"')
    return text if len(text) <= 40 else f"{text[:37]}..."
