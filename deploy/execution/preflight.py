"""Checks of a workflow's settings against each other, the data and services, before the first step."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from raypath.components.core.artifacts import Splits
from raypath.components.core.errors import ParamsError, RaypathError
from raypath.components.core.graph import Graph, Node, Ref
from raypath.components.core.params import AUTO, Params
from raypath.components.core.uris import check_hf_name, is_sql, local_path, scheme
from raypath.components.evaluation.generation.params import EvaluateGenerationParams, check_settings
from raypath.components.models import bf16
from raypath.components.models.base_models import check_folder
from raypath.components.read import ReadParams
from raypath.components.split import SplitParams
from raypath.components.tasks.catalog import TASKS, task_type
from raypath.components.training.params import FinetuneParams, TrainingParams

_log = logging.getLogger(__name__)


def check_graph(graph: Graph, final: bool = True, here: bool = False) -> None:
    """Raise UserError for settings with which a later step would fail.

    final: no setting is given later, as those of a pipeline are when it is started. here: the steps run on this
    machine, so that services they need have to respond to it.
    """
    bf16.check_environment()
    for node in graph.nodes:
        for params in (argument for argument in node.arguments if isinstance(argument, Params)):
            _check_names(params)
            if isinstance(params, TrainingParams) and params.base not in (None, AUTO):
                _check_base(params.base)
            if isinstance(params, FinetuneParams) and params.task in TASKS:
                _check_task(params, final)
            if isinstance(params, EvaluateGenerationParams):
                check_settings(params, here)
    for node in graph.nodes:
        for params in (argument for argument in node.arguments if isinstance(argument, SplitParams)):
            _check_shares(graph, node, params)


def _check_names(params: Params) -> None:
    """Raise DataError for a name of a model that the Hugging Face Hub cannot have."""
    for uri in () if isinstance(params, ReadParams) else params.sources():
        if scheme(uri) == "hf://":
            check_hf_name(uri)


def _check_base(base: str) -> None:
    """Raise DataError for a folder here that is no base model; one that is elsewhere is checked by its step."""
    if scheme(base) in ("", "package://") and (folder := local_path(base)).is_dir():
        check_folder(base, folder)


def _check_task(params: FinetuneParams, final: bool) -> None:
    """Raise ParamsError or DataError for a base that does not fit the task, as far as it is here."""
    task = task_type(params.task)
    if params.base == AUTO and final:
        task.check_no_base()
    elif scheme(params.base) == "" and (folder := local_path(params.base)).is_dir():
        task.check_base(params.base, folder)


def _check_shares(graph: Graph, node: Node, params: SplitParams) -> None:
    """Raise ParamsError for a share of 0 where a step needs the split and the data does not prescribe it."""
    for name, share in (("valid", params.valid), ("test", params.test)):
        if share > 0:
            continue
        step = next(_consumers(graph, node.name, name), None)
        if step and not all(_prescribes(read, name) for read in _reads(graph, node)):
            what = f"{node.name}.{name}=0 leaves no rows for {step}, and the data does not prescribe a {name} split"
            raise ParamsError(what, fix=f"set -s {node.name}.{name}=0.1, or give rows with -s read.{name}=")


def _consumers(graph: Graph, step: str, split: str) -> Iterator[str]:
    """Yield the steps of Raypath that take this split of what a step returns, also after it was processed further."""
    for node in graph.nodes:
        for ref in node.inputs:
            if ref.step != step:
                continue
            if ref.fields == (split,) and node.component.path.startswith("raypath.components."):
                yield node.name
            elif not ref.fields and node.component.output is Splits:
                yield from _consumers(graph, node.name, split)


def _reads(graph: Graph, node: Node) -> list[ReadParams]:
    """Return the settings of the `read` steps before a step."""
    before = {ref.step for ref in node.inputs if isinstance(ref, Ref)}
    found = [other for other in graph.nodes if other.name in before]
    own = [argument for other in found for argument in other.arguments if isinstance(argument, ReadParams)]
    return own + [params for other in found for params in _reads(graph, other)]


def _prescribes(params: ReadParams, name: str) -> bool:
    """Return True if rows of a split may be prescribed: by a setting, the names of files, or a column.

    Data that is not here, or does not open, is left to the step `read`.
    """
    if getattr(params, name):
        return True
    if is_sql(params.uri) or scheme(params.uri) not in ("", "package://", "sample://"):
        return True
    from raypath.components.data.formats.readers import columns_in
    from raypath.components.data.sources.files import find

    try:
        files = find(params.uri, _log, settings=params.file_settings)
        return any(file.split == name for file in files) or params.split in columns_in(files[0])
    except RaypathError:
        return True
