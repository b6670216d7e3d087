"""Reference of settings from the Params classes, and of the endpoint's metrics."""

import importlib
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from generators.markdown import cell
from raypath.components.core.params import Params, describe_fields
from raypath.components.serving.observability.metrics import METRIC_SPECS
from raypath.deploy.execution.workflow_loader import built_in_workflows, load_workflow
from raypath.deploy.launchers import LAUNCHERS


def settings_reference() -> str:
    """Return every setting of the built-in workflows and the launchers as Markdown, a table a group."""
    groups: dict[str, list[str]] = {}
    for kind, prefix in _params():
        defaults = kind().flat()
        for key, _, text in describe_fields(kind):
            name = prefix + key
            group = name.partition(".")[0] if "." in name else "Workflow"
            rows = groups.setdefault(group, [])
            if not any(row.startswith(f"| `{name}` ") for row in rows):
                rows.append(f"| `{name}` | {_type(kind, key)} | {cell(_default(defaults, key))} | {cell(text)} |")
    header = "| setting | type | default | meaning |\n| --- | --- | --- | --- |"
    return "\n".join(f"## {group}\n\n{header}\n" + "\n".join(rows) + "\n" for group, rows in groups.items())


def _params() -> Iterator[tuple[type[Params], str]]:
    names = sorted(built_in_workflows(), key=lambda name: name != "text_classification")
    for name in names:
        yield load_workflow(name).params_type, ""
    for name, module in LAUNCHERS.items():
        yield importlib.import_module(module).PARAMS, f"{name}."


def _default(defaults: dict[str, Any], key: str) -> str:
    value = defaults.get(key)
    if value is None or value in ("", [], ()):
        return "none" if value is None else "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(kind: type[Params], key: str) -> str:
    *groups, leaf = key.split(".")
    for group in groups:
        kind = kind.model_fields[group].annotation  # type: ignore[assignment]
    return cell(_type_name(kind.model_fields[leaf].annotation))


def _type_name(annotation: Any) -> str:
    """Return a type as a reader of the command line knows it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type_name(arguments[0])
    if str(origin) == "typing.Literal":
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in (dict, list, tuple):
        return {dict: "mapping", list: "list", tuple: "list"}[origin]
    if arguments:
        return " or ".join(_type_name(argument) for argument in arguments)
    plain = {str: "text", int: "integer", float: "number", bool: "boolean", type(None): "none"}
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


def metrics_reference() -> str:
    """Return the endpoint's metrics as Markdown."""
    labels = {name: ", ".join(f"`{label}`" for label in spec.labels) or "-" for name, spec in METRIC_SPECS.items()}
    rows = (
        f"| `{name}` | {spec.kind} | {labels[name]} | {cell(spec.description)} |" for name, spec in METRIC_SPECS.items()
    )
    return "| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows)
