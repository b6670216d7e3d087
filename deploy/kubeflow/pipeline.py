"""A graph as a Kubeflow pipeline: one container a step, typed settings and artifacts, in kfp's own form.

    settings      checks what the user typed into Kubeflow's page, before anything is paid for; hands on a plan
    STEP          each step of the graph; what it takes from others are artifacts, so that the page draws our edges

A setting `a.b` is the pipeline's parameter `a__b`. The image need not have kfp: `raypath.deploy.kubeflow.container`
speaks its protocol.
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
"""Whose protocol the container speaks. kfp's local runner starts only commands that name it."""
SETTINGS, FRESH, PLAN, RUN = "settings", "fresh", "plan", "run"
OUTPUT, METRICS = "output", "metrics"
FACTS = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", bool: "BOOLEAN"}
"""What kfp calls the plain types; an artifact's facts of these types are output parameters."""
_OWN = {"key": str, "digest": str, "reused": bool}
"""Output parameters of every step."""


@dataclass(frozen=True)
class Place:
    """Where a pipeline runs: what is the same for all of its containers, and what each one is dressed with."""

    image: str
    dress: Callable[[Any, str], None]
    """Puts resources, environment, secrets on a task of kfp; "" for the one that checks the settings."""
    extra: Mapping[str, tuple[str, ...]]
    """Further words on the command line of a step."""


def kfp() -> Any:
    """The package kfp. Raises UserError where it is not installed."""
    try:
        with warnings.catch_warnings():
            # Of Google's libraries, about the age of this Python; nothing of it is ours.
            warnings.simplefilter("ignore")
            import kfp
            import kfp.compiler
            import kfp.kubernetes
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", fix="pip install 'raypath[kubeflow]'") from None
    return kfp


def compiled(graph: Graph, workflow: str, name: str, place: Place, fresh: tuple[str, ...] = ()) -> str:
    """The pipeline as YAML: its specification and, second, what Kubernetes is told of each container.

    workflow: as the image finds it. Raises UserError for what Kubeflow would refuse.
    """
    sdk = kfp()
    tasks: dict[str, Any] = {}

    def draw(values: Mapping[str, Any]) -> None:
        run = sdk.dsl.PIPELINE_JOB_ID_PLACEHOLDER
        first = _component(sdk, SETTINGS, "Checks the settings.", place.image, _words("settings", graph, workflow),
                           _required(_settings_inputs(graph, fresh) | {RUN: (str, "")}), {PLAN: str})  # fmt: skip
        tasks[""] = first(**values, **{RUN: run})
        for node in graph.nodes:
            words = [*_words("step", graph, workflow), "--step", node.name, *place.extra.get(node.name, ())]
            text = inspect.getdoc(node.component.fn) or node.name
            box = _component(sdk, node.name, text.splitlines()[0], place.image, words,
                             _inputs(sdk, node), _outputs(sdk, node, graph))  # fmt: skip
            given = {argument: tasks[ref.step].outputs[name_of(ref)] for argument, ref in references(node)}
            tasks[node.name] = box(**given, **{PLAN: tasks[""].outputs[PLAN]})
        for step, task in tasks.items():
            # What is done is known by our own keys, which cover the code and the data too.
            task.set_caching_options(False)
            place.dress(task, step)

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
    """The pipeline's parameter of a setting. Raises UserError for a setting whose name leaves two ways back."""
    if "__" in key or "_." in key or "._" in key:
        raise UserError(f"setting {key} cannot be a parameter of Kubeflow", fix="name it without __ and _ at its ends")
    return key.replace(".", "__")


def setting(name: str) -> str:
    """The setting of a parameter."""
    return name.replace("__", ".")


def name_of(ref: Ref) -> str:
    """The output of a step that a reference stands for."""
    return "_".join([OUTPUT, *ref.fields])


def references(node: Node) -> list[tuple[str, Ref]]:
    """What a step takes from others, by the name of its argument."""
    pairs = zip(node.component.arguments, node.arguments, strict=True)
    return [(argument.name, value) for argument, value in pairs if isinstance(value, Ref)]


def handed_on(step: str, graph: Graph) -> list[Ref]:
    """What a step makes and the parts of it that others take, the whole first."""
    node = next(node for node in graph.nodes if node.name == step)
    taken = {ref.fields: ref for other in graph.nodes for ref in other.inputs if ref.step == step}
    return [Ref(step, node.component.output), *(ref for part, ref in sorted(taken.items()) if part)]


def facts_of(kind: type[Artifact]) -> dict[str, type]:
    """The facts of an artifact that are output parameters, with their types."""
    own = {"uri", PLAN, *_OWN}
    types_of = {name: field.annotation for name, field in kind.model_fields.items()}
    plain = {name: str if of is LabelKind else of for name, of in types_of.items() if of in (*FACTS, LabelKind)}
    return {name: typing.cast(type, kind) for name, kind in plain.items() if name not in own and OUTPUT not in name}


def has_metrics(kind: type[Artifact]) -> bool:
    """Whether an artifact comes with figures."""
    return METRICS in kind.model_fields


def shape(graph: Graph) -> str:
    """A digest of which steps there are and who takes what from whom; settings may change it, as may the code."""
    steps = [[n.name, n.component.path, n.component.version, [str(ref) for ref in n.inputs]] for n in graph.nodes]
    return hashlib.sha256(json.dumps(steps).encode()).hexdigest()[:16]


def typed(kind: type[Params], values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, type, Any]]:
    """(setting, kfp's type, value) of every setting. A union, such as `int | None`, is text: none, or the value."""
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
    """Raises UserError for an argument whose name is one of ours."""
    for name, _ in references(node):
        if name in (PLAN, METRICS, *_OWN) or name.startswith(OUTPUT):
            raise UserError(f"{node.component.path}: Kubeflow has no room for an argument {name}", fix="rename it")
    taken = {name: (sdk.dsl.Input[_kind(sdk, ref.kind)], inspect.Parameter.empty) for name, ref in references(node)}
    return {PLAN: (str, inspect.Parameter.empty), **taken}


def _outputs(sdk: Any, node: Node, graph: Graph) -> dict[str, Any]:
    kind, taken = node.component.output, [name for name, _ in references(node)]
    found = {name_of(ref): sdk.dsl.Output[_kind(sdk, ref.kind)] for ref in handed_on(node.name, graph)}
    if has_metrics(kind):
        found[METRICS] = sdk.dsl.Output[sdk.dsl.Metrics]
    facts = {name: plain for name, plain in facts_of(kind).items() if name not in taken}
    return {**found, **_OWN, **facts}


def _kind(sdk: Any, kind: type[Artifact]) -> Any:
    """kfp's type of an artifact of ours; its metadata names our own."""
    if issubclass(kind, Dataset | Splits):
        return sdk.dsl.Dataset
    return sdk.dsl.Model if issubclass(kind, Model) else sdk.dsl.Artifact


def _words(what: str, graph: Graph, workflow: str) -> list[str]:
    return [what, workflow, "--shape", shape(graph)]


def _component(
    sdk: Any, name: str, text: str, image: str, words: list[str], inputs: dict[str, Any], outputs: dict[str, Any]
) -> Any:
    """A container of kfp. outputs: artifacts as kfp's types, parameters as plain types."""
    arguments = [*words, "--protocol", PROTOCOL, "--executor_input", "{{$}}"]

    def box(_: Mapping[str, Any]) -> Any:
        return sdk.dsl.ContainerSpec(
            image=image, command=["python3", "-m", "raypath.deploy.kubeflow.container"], args=arguments
        )

    made = {key: sdk.dsl.OutputPath(kind) if kind in FACTS else kind for key, kind in outputs.items()}
    every = {**inputs, **{key: (kind, inspect.Parameter.empty) for key, kind in made.items()}}
    return sdk.dsl.container_component(_function(name.replace("-", "_"), text, every, box))


def _function(
    name: str, text: str, inputs: Mapping[str, tuple[Any, Any]], body: Callable[[Mapping[str, Any]], Any],
    texts: Mapping[str, str] | None = None,
) -> Any:  # fmt: skip
    """A function with these parameters (type, default), as kfp reads it: by its signature and its docstring."""

    def call(*given: Any, **named: Any) -> Any:
        return body({**dict(zip(inputs, given, strict=False)), **named})

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(key, keyword, default=v, annotation=k) for key, (k, v) in inputs.items()]
    described = "".join(f"\n    {key}: {texts[key]}" for key in inputs if texts.get(key)) if texts else ""
    call.__name__, call.__doc__ = name, text + (f"\n\nArgs:{described}\n" if described else "")
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call
