"""Compile a workflow graph to a Kubeflow pipeline: one container per step, with typed settings and artifacts.

    settings      check the parameters that the user entered, and pass a plan to the steps
    STEP          a step of the graph; its inputs are artifacts, so Kubeflow's page shows the edges of the graph

A setting `a.b` is the pipeline's parameter `a__b`. The image does not need kfp: `raypath.deploy.kubeflow.container`
implements its protocol.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import tempfile
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from raypath.components.core.artifacts import Artifact, Dataset, Model, Splits
from raypath.components.core.errors import UserError
from raypath.components.core.graph import Graph, Node, Ref
from raypath.components.core.labels import LabelKind
from raypath.components.core.params import Params, describe_fields

PROTOCOL = "kfp.dsl.executor_main"
"""Protocol of the container. kfp's local runner only starts commands that name it."""
SETTINGS, FRESH, PLAN, RUN = "settings", "fresh", "plan", "run"
OUTPUT, METRICS = "output", "metrics"
SCALARS = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", bool: "BOOLEAN"}
"""kfp's names of the scalar types; an artifact's fields of these types are output parameters."""
_OWN = {"key": str, "digest": str, "reused": bool}
"""Output parameters of every step."""


@dataclass(frozen=True)
class Target:
    """The image of a pipeline's containers, and the configuration of each one."""

    image: str
    configure: Callable[[Any, str], None]
    """Set resources, environment and secrets of a kfp task, by its step; "" is the task that checks the settings."""
    extra: Mapping[str, tuple[str, ...]]
    """Further arguments of a step's command."""


def kfp() -> Any:
    """Import kfp. Raises UserError where it is not installed."""
    try:
        with warnings.catch_warnings():
            # Google's libraries warn about the version of Python.
            warnings.simplefilter("ignore")
            import kfp
            import kfp.compiler
            import kfp.kubernetes
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", fix="pip install 'raypath[kubeflow]'") from None
    return kfp


def compile_pipeline(graph: Graph, workflow: str, name: str, target: Target, fresh: tuple[str, ...] = ()) -> str:
    """Compile to YAML: the pipeline's specification, then the Kubernetes configuration of its containers.

    workflow: name or package.module:function in the image. Raises UserError for what Kubeflow would reject.
    """
    sdk = kfp()
    tasks: dict[str, Any] = {}

    def draw(values: Mapping[str, Any]) -> None:
        run = sdk.dsl.PIPELINE_JOB_ID_PLACEHOLDER
        first = _component(sdk, SETTINGS, "Checks the settings.", target.image, _words("settings", graph, workflow),
                           _required(_settings_inputs(graph, fresh) | {RUN: (str, "")}), {PLAN: str})  # fmt: skip
        tasks[""] = first(**values, **{RUN: run})
        for node in graph.nodes:
            words = [*_words("step", graph, workflow), "--step", node.name, *target.extra.get(node.name, ())]
            text = inspect.getdoc(node.component.fn) or node.name
            box = _component(sdk, node.name, text.splitlines()[0], target.image, words,
                             _inputs(sdk, node), _outputs(sdk, node, graph))  # fmt: skip
            given = {argument: tasks[ref.step].outputs[name_of(ref)] for argument, ref in references(node)}
            tasks[node.name] = box(**given, **{PLAN: tasks[""].outputs[PLAN]})
        for step, task in tasks.items():
            # Raypath's cache keys decide what is reused; they cover code and data too.
            task.set_caching_options(False)
            target.configure(task, step)

    about = inspect.getdoc(type(graph.params)) or graph.workflow
    texts = {parameter(key): text for key, _, text in describe_fields(type(graph.params))}
    texts[FRESH] = "Steps to run from their beginning."
    pipeline = _function("pipeline", about, _settings_inputs(graph, fresh), draw, texts)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        made = sdk.dsl.pipeline(name=name, description=about)(pipeline)
        file = Path(folder, "pipeline.yaml")
        sdk.compiler.Compiler().compile(made, str(file))
        return file.read_text(encoding="utf-8")


def parameter(key: str) -> str:
    """The pipeline's parameter of a setting. Raises UserError for a name that could not be converted back."""
    if "__" in key or "_." in key or "._" in key:
        raise UserError(f"setting {key} cannot be a parameter of Kubeflow", fix="name it without __ and _ at its ends")
    return key.replace(".", "__")


def setting(name: str) -> str:
    """The setting of a pipeline parameter."""
    return name.replace("__", ".")


def name_of(ref: Ref) -> str:
    """The name of the output that a reference denotes."""
    return "_".join([OUTPUT, *ref.fields])


def references(node: Node) -> list[tuple[str, Ref]]:
    """The inputs of a step that come from other steps, by argument."""
    pairs = zip(node.component.arguments, node.arguments, strict=True)
    return [(argument.name, value) for argument, value in pairs if isinstance(value, Ref)]


def output_refs(step: str, graph: Graph) -> list[Ref]:
    """The output of a step, followed by the parts of it that other steps take."""
    node = next(node for node in graph.nodes if node.name == step)
    taken = {ref.fields: ref for other in graph.nodes for ref in other.inputs if ref.step == step}
    return [Ref(step, node.component.output), *(ref for part, ref in sorted(taken.items()) if part)]


def scalar_fields(kind: type[Artifact]) -> dict[str, type]:
    """The fields of an artifact that are output parameters, with their types."""
    own = {"uri", PLAN, *_OWN}
    types_of = {name: field.annotation for name, field in kind.model_fields.items()}
    plain = {name: str if of is LabelKind else of for name, of in types_of.items() if of in (*SCALARS, LabelKind)}
    return {name: typing.cast(type, kind) for name, kind in plain.items() if name not in own and OUTPUT not in name}


def has_metrics(kind: type[Artifact]) -> bool:
    """True for an artifact with metrics."""
    return METRICS in kind.model_fields


def shape(graph: Graph) -> str:
    """Digest of the steps and edges of a graph; settings and code may change it."""
    steps = [[n.name, n.component.path, n.component.version, [str(ref) for ref in n.inputs]] for n in graph.nodes]
    return hashlib.sha256(json.dumps(steps).encode()).hexdigest()[:16]


def typed(kind: type[Params], values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, type, Any]]:
    """Yield (setting, kfp's type, value). A union such as `int | None` is text: none, or the value."""
    for name, field in kind.model_fields.items():
        inner, value = _bare(field.annotation), values[name]
        if isinstance(inner, type) and issubclass(inner, Params):
            yield from typed(inner, value, f"{prefix}{name}.")
            continue
        outer = typing.get_origin(inner) or inner
        if outer in (int, float, bool, str, dict):
            yield f"{prefix}{name}", outer, outer(value)
        elif outer in (list, tuple):
            yield f"{prefix}{name}", list, list(value)
        else:
            yield f"{prefix}{name}", str, value if isinstance(value, str) else _text(value)


def _text(value: Any) -> str:
    return "none" if value is None else json.dumps(value)


def _bare(annotation: Any) -> Any:
    while typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return object
    return annotation


def _settings_inputs(graph: Graph, fresh: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    found = typed(type(graph.params), graph.params.model_dump(mode="json"))
    return {parameter(key): (kind, value) for key, kind, value in found} | {FRESH: (list, list(fresh))}


def _required(inputs: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    return {name: (kind, inspect.Parameter.empty) for name, (kind, _) in inputs.items()}


def _inputs(sdk: Any, node: Node) -> dict[str, tuple[Any, Any]]:
    """Inputs of a step. Raises UserError for an argument with a reserved name."""
    for name, _ in references(node):
        if name in (PLAN, METRICS, *_OWN) or name.startswith(OUTPUT):
            raise UserError(f"{node.component.path}: an argument cannot be named {name} on Kubeflow", fix="rename it")
    taken = {name: (sdk.dsl.Input[_kind(sdk, ref.kind)], inspect.Parameter.empty) for name, ref in references(node)}
    return {PLAN: (str, inspect.Parameter.empty), **taken}


def _outputs(sdk: Any, node: Node, graph: Graph) -> dict[str, Any]:
    kind, taken = node.component.output, [name for name, _ in references(node)]
    found = {name_of(ref): sdk.dsl.Output[_kind(sdk, ref.kind)] for ref in output_refs(node.name, graph)}
    if has_metrics(kind):
        found[METRICS] = sdk.dsl.Output[sdk.dsl.Metrics]
    fields = {name: plain for name, plain in scalar_fields(kind).items() if name not in taken}
    return {**found, **_OWN, **fields}


def _kind(sdk: Any, kind: type[Artifact]) -> Any:
    """kfp's type of an artifact; the metadata names Raypath's type."""
    if issubclass(kind, Dataset | Splits):
        return sdk.dsl.Dataset
    return sdk.dsl.Model if issubclass(kind, Model) else sdk.dsl.Artifact


def _words(what: str, graph: Graph, workflow: str) -> list[str]:
    return [what, workflow, "--shape", shape(graph)]


def _component(
    sdk: Any, name: str, text: str, image: str, words: list[str], inputs: dict[str, Any], outputs: dict[str, Any]
) -> Any:
    """A container component of kfp. outputs: artifacts as kfp's types, parameters as scalar types."""
    arguments = [*words, "--protocol", PROTOCOL, "--executor_input", "{{$}}"]

    def box(_: Mapping[str, Any]) -> Any:
        return sdk.dsl.ContainerSpec(
            image=image, command=["python3", "-m", "raypath.deploy.kubeflow.container"], args=arguments
        )

    made = {key: sdk.dsl.OutputPath(kind) if kind in SCALARS else kind for key, kind in outputs.items()}
    every = {**inputs, **{key: (kind, inspect.Parameter.empty) for key, kind in made.items()}}
    return sdk.dsl.container_component(_function(name.replace("-", "_"), text, every, box))


def _function(
    name: str, text: str, inputs: Mapping[str, tuple[Any, Any]], body: Callable[[Mapping[str, Any]], Any],
    texts: Mapping[str, str] | None = None,
) -> Any:  # fmt: skip
    """A function with these parameters (type, default): kfp reads its signature and its docstring."""

    def call(*given: Any, **named: Any) -> Any:
        return body({**dict(zip(inputs, given, strict=False)), **named})

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(key, keyword, default=v, annotation=k) for key, (k, v) in inputs.items()]
    described = "".join(f"\n    {key}: {texts[key]}" for key in inputs if texts.get(key)) if texts else ""
    call.__name__, call.__doc__ = name, text + (f"\n\nArgs:{described}\n" if described else "")
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call
