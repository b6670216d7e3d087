"""Tracing: edges, nested artifacts, and mistakes that name both types, the file and the line."""

from pathlib import Path

import pytest

from raypath.components import Artifact, Context, Dataset, GraphError, Params, Splits, component, workflow
from raypath.components.core.graph import Graph


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


@component(version=1)
def mend(ctx: Context, data: Dataset, params: Knob, by: Splits | None = None, then: Dataset | None = None) -> Dataset:
    return data


@workflow
def good(p: Knob) -> Dataset:
    parts = cut(load(p))
    return join(parts.train, right=parts.test, params=p)


def test_calls_draw_and_nothing_runs() -> None:
    graph = good.trace()
    assert isinstance(graph, Graph)
    assert [node.name for node in graph.nodes] == ["load", "cut", "join"]
    assert [str(ref) for ref in graph.nodes[2].inputs] == ["cut.train", "cut.test"]
    assert graph.describe()[2] == "join  Dataset <- cut.train, cut.test"


def test_the_same_component_twice_gets_two_names() -> None:
    @workflow
    def twice(p: Knob) -> Dataset:
        return join(load(p), load(p), p)

    assert [node.name for node in twice.trace().nodes] == ["load", "load-2", "join"]


def test_fn_runs() -> None:
    ctx = Context(step="load", out=Path(), scratch=Path())
    assert load.fn(ctx, Knob(turn=7)).rows == 7


def test_an_optional_artifact_may_be_left_out() -> None:
    @workflow
    def some(p: Knob) -> Dataset:
        data = load(p)
        once = mend(data, p)
        return mend(mend(once, p, cut(data), None), p, then=once)

    plain, none, keyword = (node for node in some.trace().nodes if node.component is mend)
    assert plain.arguments[2:] == (None, None)
    assert [str(ref) for ref in plain.inputs] == ["load"]
    assert [str(ref) for ref in none.inputs] == ["mend", "cut"]
    assert none.arguments[3] is None
    assert [str(ref) for ref in keyword.inputs] == ["mend-2", "mend"]
    assert some.trace().describe()[1] == "mend    Dataset <- load"


def test_a_wrong_type_for_an_optional_artifact_names_both_types_file_and_line() -> None:
    @workflow
    def wrong(p: Knob) -> Dataset:
        return mend(load(p), p, by=load(p))  # type: ignore[arg-type]  # wrong optional here

    with pytest.raises(GraphError) as caught:
        wrong.trace()
    assert f"test_workflow.py:{_line('# wrong optional here')}" in str(caught.value)
    assert str(caught.value).endswith("got Dataset (from load-2) for by; it wants Splits or None")

    @workflow
    def missing(p: Knob) -> Dataset:
        return mend(p)  # type: ignore[call-arg,arg-type]

    with pytest.raises(GraphError, match=r"it wants \(data: Dataset, params: Knob, by: Splits \| None = None, then: "):
        missing.trace()


def test_none_is_refused_where_an_artifact_is_needed() -> None:
    @workflow
    def wrong(p: Knob) -> Splits:
        return cut(None)  # type: ignore[arg-type]

    with pytest.raises(GraphError, match="cut got NoneType for data; it wants Dataset"):
        wrong.trace()


def _line(text: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(n for n, line in enumerate(lines, 1) if text in line and "_line(" not in line)


def test_a_wrong_type_names_both_types_file_and_line() -> None:
    @workflow
    def wrong(p: Knob) -> Splits:
        return cut(cut(load(p)))  # type: ignore[arg-type]  # wrong type here

    with pytest.raises(GraphError) as caught:
        wrong.trace()
    assert f"test_workflow.py:{_line('# wrong type here')}" in str(caught.value)
    assert "Splits" in str(caught.value)
    assert "wants Dataset" in str(caught.value)


def test_a_missing_argument_is_named() -> None:
    @workflow
    def wrong(p: Knob) -> Dataset:
        return join(load(p), p)  # type: ignore[call-arg,arg-type]  # missing here

    with pytest.raises(GraphError, match=f"{_line('# missing here')}.*right: Dataset"):
        wrong.trace()


def test_what_is_too_much_or_lacks_its_default_is_named() -> None:
    @component(version=1)
    def strict(ctx: Context, data: Dataset, by: Splits | None) -> Dataset:
        return data

    @workflow
    def many(p: Knob) -> Dataset:
        return load(p, p)  # type: ignore[call-arg]

    @workflow
    def few(p: Knob) -> Dataset:
        return strict(load(p))  # type: ignore[call-arg]

    with pytest.raises(GraphError, match=r"load got \(Knob, Knob\); it wants \(params: Knob\)"):
        many.trace()
    with pytest.raises(GraphError, match=r"strict got \(Ref\); it wants \(data: Dataset, by: Splits \| None\)"):
        few.trace()


def test_an_unknown_field_is_named() -> None:
    @workflow
    def wrong(p: Knob) -> Dataset:
        return cut(load(p)).dev  # type: ignore[attr-defined,no-any-return]

    with pytest.raises(GraphError, match="no field `dev`; its fields are train, valid, test"):
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

    @component(version=1)
    def optional_params(ctx: Context, params: Knob | None = None) -> Dataset:
        return Dataset(rows=1)

    @component(version=1)
    def two_kinds(ctx: Context, data: Dataset | Splits) -> Dataset:
        return Dataset(rows=1)

    for wrong in (no_type, optional_params, two_kinds):
        with pytest.raises(GraphError, match="neither an Artifact nor Params"):
            _ = wrong.arguments


def test_a_setting_without_a_default() -> None:
    class Bare(Params):
        knob: Knob

    def bare(p: Bare) -> Dataset:
        return load(p.knob)

    bare.__annotations__["p"] = Bare
    with pytest.raises(GraphError, match=r"^Bare\.knob of workflow .*:bare has no default; give it one in Bare"):
        workflow(bare).trace()
