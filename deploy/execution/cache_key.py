"""Which steps are done already, which are not, and why.

A step's key is a digest of its ingredients: the component and its version, the seed, each setting, the digest of
each input, what its addresses point at now, and the source of its code. The same key means the same result.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from raypath.components.core.artifacts import Artifact
from raypath.components.core.errors import ParamsError
from raypath.components.core.graph import Graph, Node, Ref
from raypath.components.core.params import Params
from raypath.components.core.uris import fingerprint, scheme
from raypath.components.data.sources.object_storage import objects_fingerprint
from raypath.deploy.execution.code_digest import CLASS_PATH, source_digest


def plan_of(graph: Graph) -> str:
    """Digest of the workflow and its settings: the same line again has the same one."""
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


def follow(ref: Ref, done: Mapping[str, Artifact]) -> Artifact:
    """The artifact that a reference stands for, once its step is done."""
    found = done[ref.step]
    for name in ref.fields:
        found = getattr(found, name)
    return found


def ingredients(node: Node, graph: Graph, done: Mapping[str, Artifact]) -> dict[str, str]:
    """All that decides what a step makes, by name. Its inputs must be in `done`."""
    parts = {
        "component": node.component.path,
        "version": str(node.component.version),
        "seed": str(graph.seed),
        "source": source_digest(node.component.fn.__module__),
    }
    for argument, value in zip(node.component.arguments, node.arguments, strict=True):
        if isinstance(value, Ref):
            parts[f"input {argument.name}"] = follow(value, done).digest
        elif value is not None:
            parts |= settings_of(argument.name, value, node.name)
    return parts


def settings_of(argument: str, params: Params, step: str) -> dict[str, str]:
    # A component's one Params is shown under the step's name, as the command line writes it.
    prefix = step if argument == "params" else argument
    flat = params.flat()
    found = {f"{prefix}.{key}": json.dumps(value) for key, value in flat.items()}
    # A class named by a setting, such as a task of the user's own.
    classes = [value for value in flat.values() if isinstance(value, str) and CLASS_PATH.fullmatch(value)]
    found |= {f"code of {path}": source_digest(path.partition(":")[0]) for path in classes}
    return found | {f"files of {uri}": _there(uri) for uri in params.sources()}


def _there(uri: str) -> str:
    """Stands for what an address points at now; a bucket is asked."""
    return objects_fingerprint(uri) if scheme(uri) == "s3://" else fingerprint(uri)


def key_of(parts: Mapping[str, str]) -> str:
    """The step's key, 64 hex digits."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()


def why(parts: Mapping[str, str], before: Mapping[str, str] | None) -> str:
    """What changed since the step last ran, in words."""
    if before is None:
        return "it has not run before"
    changed = [name for name in {**before, **parts} if before.get(name) != parts.get(name)]
    if not changed:
        return "its record is gone"
    return ", ".join(_change(name, before.get(name), parts.get(name)) for name in sorted(changed)[:3])


def _change(name: str, old: str | None, new: str | None) -> str:
    if name in ("component", "version", "seed") or "." in name.partition(" ")[0]:
        return f"{name} {_short(old)} -> {_short(new)}"
    return {"source": "its code changed"}.get(name, f"{name} changed")


def _short(value: str | None) -> str:
    text = "none" if value is None else value.strip('"')
    return text if len(text) <= 40 else f"{text[:37]}..."


def arguments_of(node: Node, done: Mapping[str, Artifact]) -> list[Any]:
    """The real arguments of a step whose inputs are done."""
    return [follow(a, done) if isinstance(a, Ref) else a for a in node.arguments]
