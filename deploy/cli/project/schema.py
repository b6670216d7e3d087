"""JSON Schema of a workflow's params file, from its Params models, for editors and other programs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from raypath.components.core.params import Params
from raypath.deploy.console.json_text import write_json
from raypath.deploy.console.output_file import write_file
from raypath.deploy.execution.workflow_loader import load_workflow
from raypath.deploy.launchers import LAUNCHERS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def print_schema(workflow: str, out: Path | None) -> None:
    """Print the schema, or write it to a file and print the line that makes editors use it. Raises ParamsError."""
    schema = schema_of(workflow)
    if out is None:
        return write_json(schema)
    write_file(out, json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    print(f"Put this line first in the params file, if both are in the same folder:\n{editor_line(out.name)}")


def editor_line(schema: str) -> str:
    """Return the comment by which YAML language servers find the schema of a file."""
    return f"# yaml-language-server: $schema={schema}"


def schema_of(workflow: str) -> dict[str, Any]:
    """Return the JSON Schema of what `raypath run WORKFLOW -f FILE` takes. Raises GraphError."""
    flow = load_workflow(workflow)
    kind = flow.params_type()
    schema = kind.model_json_schema(mode="validation")
    definitions = schema.setdefault("$defs", {})
    for name, module in LAUNCHERS.items():
        params: type[Params] = importlib.import_module(module).PARAMS
        if not params.model_fields:
            continue
        inner = params.model_json_schema(mode="validation")
        definitions |= inner.pop("$defs", {})
        definitions[params.__name__] = inner
        schema["properties"][name] = {"$ref": f"#/$defs/{params.__name__}", "description": f"For --on {name}."}
    title = f"Settings of {workflow}"
    return {"$schema": DIALECT, **_plain(schema), "title": title}


def _plain(node: Any) -> Any:
    """Descriptions in one line, no titles that repeat a key, and a value or text for what the command line reads."""
    if isinstance(node, list):
        return [_plain(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    found = {key: _plain(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    if isinstance(found.get("description"), str):
        found["description"] = " ".join(found["description"].split())
    return found
