"""Tracing: edges, parts, and mistakes that name both types, the file and the line."""

from pathlib import Path

import pytest

from components import Artifact, Context, Dataset, GraphError, Params, Splits, component, workflow
from components.core.graph import Graph


class Knob(Params):
    """One knob."""

    turn: int = 1
    """Turns."""


@component(version=1)
def load(ctx: Context, params: Knob) -> Dataset:
    return Dataset(rows=params.turn)


@component(version=1)
def cut(ctx: Context, data: Dataset) -> Splits:
    return Splits(train=data, valid=data, test=data)


@component(version=1)
def join(ctx: Context, left: Dataset, right: Dataset, params: Knob) -> Dataset:
    return left


@workflow
def good(p: Knob) -> Dataset:
    parts = cut(load(p))
    return join(parts.train, right=parts.test, params=p)


def test_calls_draw_and_nothing_runs() -> None:
    graph = good.trace()
    assert isinstance(graph, Graph)
    assert [node.name for node in graph.nodes] == ["load", "cut", "join"]
    assert [str(ref) for ref in graph.nodes[2].inputs] == ["cut.train", "cut.test"]
    assert graph.describe()[2] == "join  Dataset   <- cut.train, cut.test"


def test_the_same_component_twice_gets_two_names() -> None:
    @workflow
    def twice(p: Knob) -> Dataset:
        return join(load(p), load(p), p)

    assert [node.name for node in twice.trace().nodes] == ["load", "load-2", "join"]


def test_fn_runs() -> None:
    ctx = Context(step="load", out=Path(), scratch=Path())
    assert load.fn(ctx, Knob(turn=7)).rows == 7


def _line(text: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(n for n, line in enumerate(lines, 1) if text in line and "_line(" not in line)


def test_a_wrong_type_names_both_types_file_and_line() -> None:
    @workflow
    def wrong(p: Knob) -> Splits:
        return cut(cut(load(p)))  # type: ignore[arg-type]  # wrong type here

    with pytest.raises(GraphError) as caught:
        wrong.trace()
    assert f"test_graph.py:{_line('# wrong type here')}" in str(caught.value)
    assert "Splits" in str(caught.value)
    assert "wants Dataset" in str(caught.value)


def test_a_missing_argument_is_named() -> None:
    @workflow
    def wrong(p: Knob) -> Dataset:
        return join(load(p), p)  # type: ignore[call-arg,arg-type]  # missing here

    with pytest.raises(GraphError, match=f"{_line('# missing here')}.*right: Dataset"):
        wrong.trace()


def test_an_unknown_part_is_named() -> None:
    @workflow
    def wrong(p: Knob) -> Dataset:
        return cut(load(p)).dev  # type: ignore[attr-defined,no-any-return]

    with pytest.raises(GraphError, match="no part `dev`; its parts are train, valid, test"):
        wrong.trace()


def test_a_call_outside_a_workflow_is_refused() -> None:
    with pytest.raises(GraphError, match=r"outside a workflow.*load\.fn"):
        load(Knob())


def test_a_workflow_must_return_a_reference() -> None:
    @workflow
    def wrong(p: Knob) -> Dataset:
        load(p)
        return Dataset(rows=1)

    with pytest.raises(GraphError, match="returned Dataset"):
        wrong.trace()


def test_a_component_must_have_the_right_shape() -> None:
    with pytest.raises(GraphError, match="lacks `ctx`"):

        @component(version=1)
        def no_context(data: Dataset) -> Dataset:  # type: ignore[arg-type]
            return data

    @component(version=1)
    def no_type(ctx: Context, data: int) -> Artifact:
        return Dataset(rows=data)

    with pytest.raises(GraphError, match="neither an Artifact nor Params"):
        _ = no_type.arguments
