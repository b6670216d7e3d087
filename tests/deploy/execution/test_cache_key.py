"""A step's key: what it is made of, and what is said of a change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raypath.components import Context, DataError, Dataset, Params, ParamsError, component, workflow
from raypath.components.core.artifacts import Splits
from raypath.components.core.graph import Graph, Ref
from raypath.components.read import ReadParams, read
from raypath.deploy.execution import cache_key
from raypath.deploy.execution.workflow_loader import load_workflow


class Flow(Params):
    """Read, then count."""

    read: ReadParams = ReadParams()
    seed: int = 0
    """Seed."""


@component(version=1)
def count(ctx: Context, data: Dataset, params: ReadParams) -> Dataset:
    return data


@component(version=2, name="count")
def count_anew(ctx: Context, data: Dataset, params: ReadParams) -> Dataset:
    return data


@workflow
def flow(p: Flow) -> Dataset:
    return count(read(p.read), p.read)


@workflow
def anew(p: Flow) -> Dataset:
    return count_anew(read(p.read), p.read)


def key(graph: Graph, digest: str = "a") -> str:
    """The key of the second step."""
    done = {"read": Dataset(rows=1, digest=digest)}
    return cache_key.compute_key(cache_key.cache_key_inputs(graph.nodes[1], graph, done))


def test_a_key_changes_with_each_thing_that_it_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,label\n")
    data = ReadParams(uri=str(tmp_path))
    graph = flow.trace(Flow(read=data))
    keys = [key(graph)]
    assert key(flow.trace(Flow(read=data))) == keys[0]
    keys.append(key(graph, "b"))
    keys.append(key(flow.trace(Flow(read=data, seed=1))))
    keys.append(key(flow.trace(Flow(read=data.model_copy(update={"text": "body"})))))
    keys.append(key(anew.trace(Flow(read=data))))
    os.utime(file, ns=(1, 1))
    keys.append(key(graph))
    (tmp_path / "b.csv").write_text("text,label\n")
    keys.append(key(graph))
    monkeypatch.setattr(cache_key, "source_digest", lambda module: "other code")
    keys.append(key(graph))
    assert len(set(keys)) == 8
    assert all(len(one) == 64 for one in keys)


def test_a_key_names_its_inputs_whatever_their_order() -> None:
    graph = flow.trace(Flow())
    parts = cache_key.cache_key_inputs(graph.nodes[1], graph, {"read": Dataset(rows=1, digest="d")})
    assert (parts["component"], parts["version"]) == (f"{__name__}:count", "1")
    assert (parts["input data"], parts["count.text"]) == ("d", '"text"')
    assert parts["files of sample://reviews"].startswith("sample://reviews@")
    assert cache_key.compute_key(dict(reversed(parts.items()))) == cache_key.compute_key(parts)


def test_what_changed_is_said_in_words() -> None:
    before = {"version": "1", "source": "x", "read.text": '"text"', "files of a.csv": "1", "input data": "d"}
    assert cache_key.explain_change(before, None) == "it has not run before"
    assert cache_key.explain_change(before, before) == "its record is gone"
    assert cache_key.explain_change(before | {"source": "y"}, before) == "its code changed"
    assert (
        cache_key.explain_change(before | {"version": "2", "read.text": '"body"'}, before)
        == "read.text text -> body, version 1 -> 2"
    )
    assert cache_key.explain_change(before | {"files of a.csv": "2"}, before) == "files of a.csv changed"
    other = {name: value for name, value in before.items() if name != "files of a.csv"} | {"files of b.csv": "1"}
    assert cache_key.explain_change(other | {"read.uri": '"b.csv"'}, before | {"read.uri": '"a.csv"'}) == (
        "read.uri a.csv -> b.csv"
    )
    assert cache_key.explain_change(other, before) == "files of a.csv changed, files of b.csv changed"
    assert cache_key.explain_change(before | {"read.new": "3"}, before) == "read.new none -> 3"
    assert cache_key.explain_change({k: v for k, v in before.items() if k != "version"}, before) == "version 1 -> none"
    assert cache_key.explain_change(dict.fromkeys(before, "other"), before).count(",") == 2, "at most three changes"
    long = cache_key.explain_change(before | {"read.text": f'"{"x" * 41}"'}, before)
    assert long == f"read.text text -> {'x' * 37}..."
    assert cache_key.explain_change(before | {"read.text": f'"{"x" * 40}"'}, before) == f"read.text text -> {'x' * 40}"


def test_a_step_of_fresh_that_is_none_is_named() -> None:
    graph = flow.trace()
    cache_key.check_steps(graph, ["read", "count"])
    with pytest.raises(ParamsError, match=r"--fresh raed: no such step; did you mean read\?"):
        cache_key.check_steps(graph, ["read", "raed"])
    with pytest.raises(ParamsError, match="no such step; its steps are read, count"):
        cache_key.check_steps(graph, ["xyz"])


def test_files_that_do_not_exist_are_named_before_anything_starts(tmp_path: Path) -> None:
    def trace(uri: str) -> Graph:
        return flow.trace(Flow(read=ReadParams(uri=uri)))

    (tmp_path / "reviews.csv").write_text("text,label\n")
    with pytest.raises(DataError, match=r"no file at .*review\.csv; .*did you mean .*reviews\.csv\?"):
        cache_key.check_sources(trace(f"{tmp_path}/review.csv"))
    with pytest.raises(DataError, match="no file at"):
        cache_key.check_sources(trace(f"file://{tmp_path}/none.csv"))
    with pytest.raises(DataError, match="is not installed"):
        cache_key.check_sources(trace("package://no_such_package/a.csv"))
    for uri in (
        f"{tmp_path}/*.csv",
        str(tmp_path),
        f"file://{tmp_path}/reviews.csv",
        "sample://reviews",
        "s3://b/a.csv",
    ):
        cache_key.check_sources(trace(uri))


def test_a_base_model_that_does_not_exist_is_named_before_anything_starts(tmp_path: Path) -> None:
    text_classification = load_workflow("text_classification")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()

    def trace(base: str) -> Graph:
        return text_classification.trace(text_classification.params_type().override({"finetune.base": base}))

    with pytest.raises(DataError, match=r"no file at .*modle; .*did you mean .*model\?"):
        cache_key.check_sources(trace(f"{tmp_path}/modle"))
    for base in (f"{tmp_path}/model", "hf://team/model"):
        cache_key.check_sources(trace(base))


def test_a_plan_is_a_workflow_with_its_settings() -> None:
    first = cache_key.settings_digest(flow.trace())
    assert cache_key.settings_digest(flow.trace(Flow())) == first
    assert (
        len({first, cache_key.settings_digest(flow.trace(Flow(seed=1))), cache_key.settings_digest(anew.trace())}) == 3
    )


def test_a_reference_to_a_part_is_followed() -> None:
    train, rest = Dataset(rows=1), Dataset(rows=2)
    done = {"split": Splits(train=train, valid=rest, test=rest)}
    assert cache_key.resolve(Ref("split", Splits, ("train",)), done) is train
    assert cache_key.resolve(Ref("split", Splits), done) is done["split"]
