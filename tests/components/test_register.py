"""Model versions, aliases and their reasons, against a real MLflow server."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from raypath.components import DataError, Model, ParamsError, Release, Report, Unavailable, UserError
from raypath.components.core.context import Tracking
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.inference.batch.scoring import score
from raypath.components.inference.engine import Engine
from raypath.components.models.metadata import read_metadata
from raypath.components.register import RegisterParams, _alive, register
from raypath.components.registry import aliases, cache, publish
from raypath.components.registry import client as registry
from raypath.components.registry.tags import unpack
from raypath.components.serve import serve
from raypath.components.serving.params import ServeParams
from raypath.components.tasks.catalog import load_task
from raypath.components.tracking.experiments import experiment_id
from tests.components.recording import Recorder
from tests.tiny_classifier import LENGTH, made_up, texts, tiny_classifier, tiny_dataset, tiny_report

# numpy's dtypes and MLflow's pydantic models complain of each other on import.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mlflow")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    place = tmp_path_factory.mktemp("models")
    return [tiny_classifier(place / str(seed), seed=seed) for seed in range(2)]


@pytest.fixture(scope="module")
def data(models, tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data") / "test", models[0])


@pytest.fixture
def go(mlflow_uri, models, data, make_context, tmp_path):
    """`go(0.8, key="a")`: register a model that predicts that share of the rows as `name` of this test."""
    tracking = Tracking(uri=mlflow_uri, experiment="shop", parent="", spool=str(tmp_path / "spool"))

    def go(right: float, key: str, name: str = tmp_path.name, model: Model = models[0], **changes) -> Release:
        part = changes.pop("part", data)
        folder = tmp_path / "reports" / f"{time.monotonic_ns()}"
        report = tiny_report(folder, model, part, right).model_copy(update=changes.pop("report", {}))
        go.notes, go.progress = Recorder(), tmp_path / "progress"
        ctx = make_context("register", key=key, tracking=tracking, track=go.notes, progress=go.progress)
        go.out = ctx.out
        return register.fn(ctx, model, report, RegisterParams(name=name, **changes))

    def champion() -> str:
        """The name of a model with a champion, for tests that leave it that; registered once."""
        assert go(0.5, "champion", name="shared").version == 1
        return "shared"

    go.champion = champion
    go.tracking = tracking
    go.name = tmp_path.name
    go.context = lambda key="": make_context("register", key=key, tracking=tracking)
    return go


@pytest.fixture
def client(mlflow_uri):
    with registry.mlflow_client(mlflow_uri) as client:
        yield client


def test_the_alias_moves_only_when_the_rows_show_that_the_new_one_is_better(go, client, mlflow_uri) -> None:
    first, worse, better, tie = go(0.80, "a"), go(0.75, "b"), go(0.84, "c"), go(0.84, "d")
    assert [r.version for r in (first, worse, better, tie)] == [1, 2, 3, 4]
    assert [r.alias for r in (first, worse, better, tie)] == ["champion", "challenger", "champion", "challenger"]
    assert [r.serving for r in (first, worse, better, tie)] == [1, 1, 3, 3]
    assert re.fullmatch(
        r"macro_f1 0\.5516 against 0\.5779 of version 1, worse by 0\.0264 \(95% interval 0\.01\d+ to 0\.04\d+\) "
        r"on the same 200 test rows with 0 won and 10 lost: chance of being better 0%, wanted 90%",
        worse.reason,
    )
    assert " with 8 won and 0 lost: chance of being better 99" in better.reason
    assert tie.reason.endswith(
        "equal (95% interval 0.0000 to 0.0000) on the same 200 test rows: chance of being better 50%, wanted 90%"
    )
    assert go.notes.tagged == {"raypath.version": f"{go.name}/4", "raypath.reason": tie.reason}
    assert json.loads((go.out / "release.json").read_text()) == {"name": go.name, "version": 4, "reason": tie.reason}
    line = json.loads(go.progress.read_text())
    assert (line["done"], line["total"], line["message"]) == (2, 3, "comparing with the champion")
    shown = [client.get_model_version(go.name, str(n)).description.splitlines() for n in (3, 4)]
    assert [lines[0] for lines in shown] == [f"**champion**: {better.reason}", f"**challenger**: {tie.reason}"]
    assert shown[0][2].startswith("Task `text_classification`")
    tags = client.get_model_version(go.name, "3").tags
    assert tags["raypath.reason"] == better.reason
    assert unpack(tags)["raypath.test_digest"] == "test-part"
    names = {"key", "details", "metric.macro_f1", "reason", "decided", "previous_champion", "signature", "promotion"}
    assert {name.removeprefix("raypath.") for name in tags} == names
    assert shown[0][4] == "Tested on 200 rows of made up."
    assert tags["raypath.previous_champion"] == "1"
    listed = [v for v in registry.list_models(mlflow_uri) if v.name == go.name]
    assert [(v.version, v.aliases) for v in listed] == [(4, ("challenger",)), (3, ("champion",)), (2, ()), (1, ())]
    assert listed[1].metrics == better.metrics
    assert listed[1].metrics["accuracy"] == 0.84


def test_a_little_better_is_no_evidence_until_the_confidence_allows_it(go) -> None:
    go(0.80, "a")
    close = go(0.81, "b")  # two rows won, none lost: one of four pairs of equal models looks like this
    assert close.alias == "challenger"
    assert "2 won and 0 lost: chance of being better 8" in close.reason
    assert go(0.81, "c", confidence=0.8).alias == "champion"


def test_a_lower_loss_is_better(go) -> None:
    assert go(0.8, "a", better_on="log_loss").alias == "champion"
    assert ", worse by " in go(0.7, "b", better_on="log_loss").reason
    better = go(0.9, "c", better_on="log_loss")
    assert (better.alias, better.reason.startswith("log_loss 0.4")) == ("champion", True)
    assert ", better by " in better.reason


def test_few_rows_are_named(go, models, tmp_path) -> None:
    few = tiny_dataset(tmp_path / "few", models[0], rows=12, digest="few")
    go(0.5, "a", part=few)
    assert go(0.6, "b", part=few).reason.endswith("; 12 rows show large differences only")


def test_a_class_that_falls_keeps_the_champion(go, models, data, tmp_path) -> None:
    """The new one is better by far, but for one class."""
    from raypath.components.inference.batch.scoring import OUTPUTS, save_outputs

    go(0.5, "a")
    report = tiny_report(tmp_path / "fallen", models[0], data, 1.0)
    outputs = np.load(tmp_path / "fallen" / OUTPUTS)
    right = outputs.argmax(axis=1)
    rare = int(np.bincount(right, minlength=3)[:2].argmin())
    rows = np.flatnonzero(right == rare)
    outputs[rows[25:]] = np.roll(outputs[rows[25:]], 1, axis=1)
    save_outputs(tmp_path / "fallen", outputs)
    assert len(rows) >= 30
    changed = {"uri": report.uri}
    release = go(1.0, "b", report=changed)
    assert release.alias == "challenger"
    fallen = rf"class {models[0].labels[rare]} \({len(rows)} rows\) fell by \d\.\d+, more than 0\.0500$"
    assert re.search(rf"wanted 90%, but {fallen}", release.reason)
    assert go(1.0, "c", report=changed, slice_margin=1.0).alias == "champion"


def test_the_same_step_again_makes_no_second_version(go, client) -> None:
    first = go(0.8, "same")
    assert go(0.8, "same") == first
    assert len(registry.versions(client, go.name)) == 1


def test_a_kill_between_upload_and_version_leaves_one_of_each(go, client, monkeypatch) -> None:
    from mlflow import MlflowClient

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for method in ("log_model_artifacts", "create_model_version", "set_registered_model_alias"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, method, killed)
            with pytest.raises(KeyboardInterrupt):
                go(0.8, "killed")
    release = go(0.8, "killed")
    assert (release.version, release.alias, release.serving) == (1, "champion", 1)
    home = client.get_experiment_by_name("shop").experiment_id
    logged = client.search_logged_models([home], filter_string="tags.`raypath.key` = 'killed'")
    assert [str(m.status) for m in logged] == ["READY"]


def test_a_kill_after_the_alias_moved_keeps_the_decision(go, client, monkeypatch) -> None:
    go(0.7, "old")
    decided: list[str] = []
    from mlflow import MlflowClient

    whole = MlflowClient.set_model_version_tag

    def killed(self: object, name: str, version: str, key: str, value: str) -> None:
        if key == "raypath.reason":
            decided.append(value)
        if key == "raypath.decided":
            raise KeyboardInterrupt
        whole(self, name, version, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_model_version_tag", killed)
        with pytest.raises(KeyboardInterrupt):
            go(0.8, "new")
    release = go(0.8, "new")
    assert (release.version, release.alias, [release.reason]) == (2, "champion", decided)
    page = (go.out / "comparison.html").read_text(encoding="utf-8")
    assert "with version 1 on 200 test rows" in page
    assert "promoted to champion" in page
    assert release.chance > 0.99


def test_a_kill_before_the_challenger_is_recorded_leaves_its_page_too(go, client, monkeypatch) -> None:
    go(0.7, "old")
    from raypath.components.registry import gate

    with monkeypatch.context() as patch:
        patch.setattr(gate, "DECIDED", None)  # a tag without a name: the step ends before it has recorded its alias
        with pytest.raises(Exception):  # noqa: B017, PT011
            go(0.69, "new")
    release = go(0.69, "new")
    assert release.alias == "challenger"
    assert "challenger: the champion stays" in (go.out / "comparison.html").read_text(encoding="utf-8")
    again = go(0.69, "new")
    assert again == release, "and once more, with the decision recorded"
    page = (go.out / "comparison.html").read_text(encoding="utf-8")
    assert release.reason.split(":")[0] in page
    assert 0.0 < release.chance < 0.5


def test_a_champion_of_another_test_part_is_measured_on_this_one(go, models, data) -> None:
    go(0.99, "a", part=data.model_copy(update={"digest": "an older part"}))
    task = load_task(read_metadata(Path(models[0].uri)))
    targets, logits = score(Path(models[0].uri), data, 1)
    own = task.metrics(targets, task.decode(logits))["macro_f1"]
    release = go(1.0, "b", model=models[1])
    assert release.alias == "champion"
    assert release.reason.startswith(
        f"macro_f1 {2 / 3:.4f} against {own:.4f} of version 1 (evaluated on this test split), better by "
    )


def test_a_report_without_outputs_is_scored_again(go, models, data, client) -> None:
    go(0.0, "a")
    task = load_task(read_metadata(Path(models[0].uri)))
    targets, logits = score(Path(models[0].uri), data, 1)
    own = task.metrics(targets, task.decode(logits))["macro_f1"]
    assert go(1.0, "b", report={"uri": ""}).reason.startswith(f"macro_f1 {own:.4f} against 0.0000 of version 1, ")


def test_versions_of_a_regression_are_compared_in_its_own_figures(go, tmp_path) -> None:
    old = tiny_classifier(tmp_path / "0", labels=("height", "age"), kind="number")
    new = tiny_classifier(tmp_path / "1", labels=("age", "height"), kind="number", seed=1)
    part = tiny_dataset(tmp_path / "part", old, rows=30)
    older = part.model_copy(update={"digest": "older"})
    go(0.6, "a", model=old, part=older)
    assert ", worse by " in go(0.3, "b", model=old, part=older).reason
    release = go(1.0, "c", model=new, part=part, better_on="mae")
    engine = Engine(Path(old.uri))
    lines = engine.record(TextTokenizer(Path(old.uri), LENGTH).encode(texts(30)))
    mae = np.abs(lines - np.array(made_up(old, 30))).mean()
    assert release.reason.startswith(f"mae 0.0000 against {mae:.4f} of version 1 (evaluated on this test split), ")


def test_a_model_of_sets_is_not_compared_with_one_of_classes(go, tmp_path, data) -> None:
    name = go.champion()
    sets = tiny_classifier(tmp_path / "sets", kind="set")
    part = tiny_dataset(tmp_path / "sets-part", sets, digest="other")
    release = go(0.9, "sets", name=name, model=sets, part=part, better_on="macro_f1")
    assert release.reason == "not comparable with version 1: it has another task or other labels"


def test_a_version_answers_in_the_precision_that_won(
    go, client, models, data, mlflow_uri, tmp_path, monkeypatch
) -> None:
    from raypath.components.inference import precision_selection as precision
    from raypath.components.inference.backends.precision_config import read_choice

    monkeypatch.setattr(precision, "ROUND_SECONDS", 0.1)
    monkeypatch.setattr(precision, "GAIN", 0.0)
    report = Report(model=models[0], data=data, metrics={"macro_f1": 0.7})
    params = RegisterParams(name=go.name, tolerance=1.0)
    release = register.fn(go.context("p"), models[0], report, params, data)
    tags = client.get_model_version(go.name, str(release.version)).tags
    assert release.metrics == {"macro_f1": 0.7}
    folder = registry.resolve(mlflow_uri, f"models:/{go.name}@champion", tmp_path / "cache")[2]
    choice = read_choice(folder)
    assert choice is not None
    fastest = max(choice.table, key=lambda line: line.rows_per_second)
    figures = (fastest.precision, f"{fastest.rows_per_second:.1f}")
    tags = unpack(tags)
    assert (tags["raypath.precision"], tags["raypath.precision_rows_per_second"]) == figures
    assert Engine(folder).precision == fastest.precision
    assert "raypath.precision" not in unpack(client.get_model_version(go.name, str(go(0.5, "q").version)).tags)


def test_other_labels_are_not_compared(go, tmp_path, data) -> None:
    name = go.champion()
    other = tiny_classifier(tmp_path / "other", labels=("yes", "no"))
    part = tiny_dataset(tmp_path / "other-part", other, digest="other")
    release = go(0.9, "other", name=name, model=other, part=part)
    assert (release.alias, release.serving) == ("challenger", 1)
    assert release.reason == "not comparable with version 1: it has another task or other labels"


def test_a_first_version_that_is_no_better_than_one_class_is_not_promoted(go, make_context) -> None:
    release = go(0.1, "a", beat_baseline=True)
    assert (release.version, release.alias, release.serving) == (1, "challenger", 0)
    assert re.match(r"macro_f1 0\.\d{4} against 0\.2663 of always good, not better, which registry", release.reason)
    assert _alive(go.context("a"), release)
    with pytest.raises(UserError, match=rf"no champion to serve; of version 1: macro_f1.*raypath promote {go.name} 1"):
        serve.fn(make_context("serve"), release, ServeParams())
    second = go(0.1, "b")
    assert second.alias == "champion"
    assert second.reason.endswith(" of always good, not better; there was no champion")
    assert not _alive(go.context("a"), release)


def test_what_a_person_decided_stays_when_the_step_runs_again(go, mlflow_uri) -> None:
    go(0.7, "a")
    release = go(0.8, "b")
    assert _alive(go.context("b"), release)
    assert aliases.rollback(mlflow_uri, go.name)[0] == 1
    assert not _alive(go.context("b"), release)
    again = go(0.8, "b")
    assert (again.version, again.alias, again.serving) == (2, "champion", 1)
    assert _alive(go.context("b"), again)
    assert _alive(go.context(), again)
    assert not _alive(go.context("another key"), again)
    assert not _alive(go.context(), again.model_copy(update={"version": 7}))
    assert not _alive(go.context(), again.model_copy(update={"name": "nothing"}))


def test_promote_and_rollback_keep_a_history(go, client, mlflow_uri) -> None:
    for n, right in enumerate((0.5, 0.6, 0.4)):
        go(right, f"k{n}")
    assert aliases.promote(mlflow_uri, go.name, 3) == 2
    assert aliases.champion(client, go.name).version == 3
    assert [aliases.rollback(mlflow_uri, go.name)[0] for _ in range(2)] == [2, 1]
    with pytest.raises(UserError, match="first champion"):
        aliases.rollback(mlflow_uri, go.name)
    with pytest.raises(DataError, match="no version 9; its versions: 3, 2, 1"):
        aliases.promote(mlflow_uri, go.name, 9)


def test_resolve_fetches_a_version_once_and_transformers_opens_it(go, models, mlflow_uri, tmp_path) -> None:
    name = go.champion()
    found, version, folder = registry.resolve(mlflow_uri, f"models:/{name}@champion", tmp_path / "cache")
    assert (found, version) == (name, 1)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert registry.resolve(mlflow_uri, f"models:/{name}/1", tmp_path / "cache")[2] == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {folder.name, f".{folder.name}.lock"}
    tokens = TextTokenizer(folder, LENGTH).encode(texts(5))
    np.testing.assert_array_equal(Engine(folder).record(tokens), Engine(Path(models[0].uri)).record(tokens))
    with registry.mlflow_client(mlflow_uri) as client:
        source = registry.get_version(client, name, 1).source
    assert cache.cached(mlflow_uri, name, 1, source, tmp_path / "cache") == folder
    assert cache.cached(mlflow_uri, name, 1, "models:/m-other", tmp_path / "cache") is None


def test_unknown_names_come_with_the_nearest(go, mlflow_uri, tmp_path) -> None:
    name = go.champion()
    with pytest.raises(DataError, match=f"did you mean {name}"):
        registry.resolve(mlflow_uri, f"models:/{name}x@champion", tmp_path)
    with pytest.raises(DataError, match=r"no alias best; its aliases: (challenger, )?champion;"):
        registry.resolve(mlflow_uri, f"models:/{name}@best", tmp_path)
    with pytest.raises(UserError, match="wanted models:/NAME@ALIAS"):
        registry.resolve(mlflow_uri, "models:/x", tmp_path)
    with pytest.raises(ParamsError, match="did you mean macro_f1"):
        go(0.5, "b", better_on="macro_f2")


LOAD = """
import json, sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
answer = model.predict(pandas.DataFrame({"text": json.loads(sys.argv[3])}))
assert "raypath" not in sys.modules
print(json.dumps(answer.to_dict("list")))
"""


def test_a_version_loads_where_nothing_of_ours_is_installed(go, models, mlflow_uri, tmp_path) -> None:
    numbers = tiny_classifier(tmp_path / "numbers", labels=("1", "2", "3"), kind="int")
    go(0.5, "a", model=numbers, part=tiny_dataset(tmp_path / "part", numbers))
    lines = texts(12)
    command = [sys.executable, "-I", "-c", LOAD, mlflow_uri, f"models:/{go.name}@champion", json.dumps(lines)]
    env = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    logits = Engine(tmp_path / "numbers").record(TextTokenizer(tmp_path / "numbers", LENGTH).encode(lines))
    assert answer["label"] == [int(k) + 1 for k in logits.argmax(axis=1)]
    assert not list((tmp_path / "numbers").rglob("*.pkl"))


def test_nothing_lands_in_the_default_experiment_and_the_run_is_linked(go, client, models) -> None:
    home = experiment_id(client, "linked")
    run = client.create_run(home, tags={"raypath.id": "outer"})
    ctx = go.context("linked")
    ctx = dataclasses.replace(ctx, tracking=dataclasses.replace(ctx.tracking, experiment="linked", parent="outer"))
    metrics = {
        "accuracy": 0.5,
        "macro_f1": 0.4,
        "macro_f1_low": 0.3,
        "macro_f1_high": 0.45,
        "ece": 0.1,
        "log_loss": 2.0,
    }
    tags = {"raypath.key": "linked", "raypath.task": "text_classification", "raypath.labels": "3"}
    tags |= {f"raypath.metric.{name}": repr(value) for name, value in metrics.items()}
    with registry.mlflow_client(go.tracking.uri) as fresh:
        version = publish.publish(fresh, ctx, models[0], go.name, tags, lambda _: None)
    found = client.get_model_version(go.name, str(version))
    assert found.run_id == run.info.run_id
    assert found.description.splitlines()[0] == "Task `text_classification`, 3 labels."
    assert "| macro_f1 | 0.4000 | 0.3000 to 0.4500 |" in found.description
    assert "| accuracy | 0.5000 |  |" in found.description
    [logged] = client.search_logged_models([home], filter_string="tags.`raypath.key` = 'linked'")
    assert {metric.key: metric.value for metric in logged.metrics} == metrics
    experiment = client.get_experiment(home)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(json.loads(experiment.tags["mlflow.sharedViewState.raypath"])["state"])
    assert view["selectedColumns"][-3:] == [f"metrics.`evaluate/{n}`" for n in ("macro_f1", "accuracy", "ece")]
    assert client.search_runs(["0"]) == []
    assert client.search_logged_models(["0"]) == []


def test_an_absent_server_is_told_at_once(make_context, models, data, tmp_path) -> None:
    tracking = Tracking(uri="http://127.0.0.1:9", experiment="shop", spool=str(tmp_path / "spool"))
    ctx = make_context("register", key="k", tracking=tracking)
    report = Report(model=models[0], data=data, metrics={"macro_f1": 0.5})
    start = time.monotonic()
    with pytest.raises(Unavailable, match=r"MLflow does not respond at http://127\.0\.0\.1:9"):
        register.fn(ctx, models[0], report, RegisterParams())
    with pytest.raises(Unavailable, match="does not respond"):
        _alive(ctx, Release(name="m", version=1, alias="champion", reason="", serving=1))
    assert time.monotonic() - start < 5
