"""`raypath check`, and the first second of `run`: settings with which a later step would fail."""

from __future__ import annotations

import re
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError, ParamsError, Unavailable
from raypath.components.models import bf16
from raypath.components.training.params import FinetuneParams
from raypath.deploy.api.listings import workflow_detail
from raypath.deploy.cli import main as cli
from raypath.deploy.execution.cache_key import own_key_inputs
from raypath.deploy.execution.workflow_loader import load_workflow
from raypath.deploy.launchers import prepare, trace
from raypath.deploy.local import services
from tests.tiny import tiny_bert
from tests.tiny_chat import chat_folder
from tests.tiny_seq2seq import seq2seq_folder


def check(workflow: str = "text_classification", **settings: Any) -> Any:
    return trace(load_workflow(workflow), {key.replace("__", "."): value for key, value in settings.items()})


@pytest.mark.parametrize(("split", "step"), [("test", "evaluate"), ("valid", "tune")])
def test_a_split_that_a_step_needs_is_not_empty(split: str, step: str, tmp_path: Path) -> None:
    for name in ("a.csv", "train.csv", "test.csv", "valid.csv"):
        (tmp_path / name).write_text("text,label\na,b\n")
    share = {f"split__{split}": 0.0}
    told = rf"split.{split}=0 leaves no rows for {step}, and the data does not prescribe a {split} split"
    with pytest.raises(ParamsError, match=told) as caught:
        check(read__uri=str(tmp_path / "a.csv"), **share)
    assert f"-s read.{split}=" in caught.value.fix
    check(read__uri=str(tmp_path / "a.csv"), **{f"read__{split}": str(tmp_path / "test.csv")}, **share)
    (tmp_path / "a.csv").unlink()
    check(read__uri=str(tmp_path), **share)
    (tmp_path / "column.csv").write_text("text,label,split\na,b,train\n")
    check(read__uri=str(tmp_path / "column.csv"), **share)
    check(read__uri="s3://bucket/a.csv", **share)


def test_a_split_that_no_step_needs_may_be_empty() -> None:
    check("pretraining", unlabelled__uri="sample://movies", unlabelled_split__test=0.0)
    with pytest.raises(ParamsError, match=r"unlabelled_split|split_2|valid=0"):
        check("pretraining", unlabelled__uri="sample://movies", unlabelled_split__valid=0.0)


@pytest.mark.parametrize("name", ["a/b/c", "a b", "a/b--c"])
def test_a_name_that_the_hub_cannot_have(name: str) -> None:
    for setting in ("finetune__base", "preprocess__tokenizer"):
        with pytest.raises(DataError, match="is no name of a repository"):
            check(**{setting: f"hf://{name}"})
    check(finetune__base="hf://team/model@v1")


def test_a_base_that_does_not_fit_the_task(tmp_path: Path) -> None:
    both, decoder = seq2seq_folder(tmp_path / "t5", "t5"), chat_folder(tmp_path / "llama")
    with pytest.raises(ParamsError, match="the task text_to_text has no default base model") as caught:
        check("text_to_text", read__uri="a.csv")
    assert "hf://google-t5/t5-small" in caught.value.fix
    assert "evaluate_generation" in [step.name for step in workflow_detail("text_to_text", {}).steps], "shown without"
    with pytest.raises(DataError, match="llama is a llama; wanted an encoder-decoder"):
        check("text_to_text", read__uri="a.csv", finetune__base=str(decoder))
    for workflow in ("chat", "preference"):
        with pytest.raises(DataError, match=r"t5 is an encoder-decoder \(t5\); wanted a decoder"):
            check(workflow, read__uri="a.csv", finetune__base=str(both))
        check(workflow, read__uri="a.csv", finetune__base=str(decoder))
    check("text_to_text", read__uri="a.csv", finetune__base=str(both))
    check("text_to_text", read__uri="a.csv", finetune__base="hf://google-t5/t5-small")


def test_a_folder_that_is_no_base_model(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    check(finetune__base=str(base))
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(DataError, match="weights in pytorch_model") as caught:
        check(finetune__base=str(base))
    assert "to_safetensors" in caught.value.fix
    check(finetune__base="/models/on/the/cluster")


def test_it_is_one_line_of_the_command_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, home = tmp_path / "rows.csv", tmp_path / "home"
    monkeypatch.setenv("RAYPATH_HOME", str(home))
    rows.write_text("text,label\na,b\n")
    for command, setting in (("check", "finetune.base=hf://a/b/c"), ("run", "split.test=0")):
        line = [command, "text_classification", "-s", f"read.uri={rows}", "-s", setting]
        try:
            assert cli.main(line) == 2
            assert not home.exists(), "nothing was started"
        finally:
            services.down(home)
        assert capsys.readouterr().err.count("\n") == 1


def test_few_open_files_are_named_before_anything_starts(tmp_path: Path) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, 1_024))

    line = [sys.executable, "-m", "raypath.deploy.cli.main", "up"]
    done = subprocess.run(line, cwd=tmp_path, preexec_fn=few, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "may open 1,024 files at most (hard limit); the endpoints need 8,448" in done.stderr
    assert not (tmp_path / ".raypath" / "mlflow").exists()


def test_the_precision_of_the_environment_is_in_the_keys_that_depend_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = check()
    nodes = {node.name: node for node in graph.nodes}
    for value, steps in (("fp32", {"extract", "tune", "finetune", "evaluate", "register", "serve"}), ("", set())):
        monkeypatch.setenv(bf16.VARIABLE, value)
        found = {name for name, node in nodes.items() if bf16.VARIABLE in own_key_inputs(node, graph)}
        assert found >= steps
        assert found.isdisjoint({"read", "split", "preprocess"})
        assert bool(found) == bool(value)
    assert FinetuneParams().precision == "auto"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"json_schema": "absent.json"}, "setting json_schema got 'absent.json', which cannot be read"),
        ({"json_schema": "{"}, "setting json_schema got '{', which is not a JSON object"),
        ({"judge": "https://host/v1", "before": False}, "setting judge compares with the base"),
        ({"judge": "host"}, "setting judge got 'host'"),
    ],
)
def test_an_evaluation_of_responses_that_would_fail(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(told)):
        check("chat", **{f"evaluate__{name}": value for name, value in settings.items()})


def test_a_judge_has_to_respond_before_a_training_on_this_machine(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    settings = {"evaluate.judge": url}
    with pytest.raises(Unavailable, match=f"the judge at {url} does not respond"):
        prepare("local", "chat", settings, tmp_path)
    prepare("ray", "chat", settings, tmp_path)  # the cluster may reach what this machine does not
