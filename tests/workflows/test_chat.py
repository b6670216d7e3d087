"""From conversations to a registered version that answers, on a tiny Llama: the workflow, and what a user does then."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import raypath
from raypath.components.inference.generation.local_chat import LocalChat
from raypath.components.tracking import login
from raypath.deploy.execution.run_history import Run
from raypath.deploy.local.state import mlflow_secret, read
from tests.byte_llama import tiny_chat
from tests.workflows.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("several")]
ANIMALS = ("gull", "deer", "hawk", "owl")


def write_conversations(path: Path, rows: int) -> None:
    """Reports that name an animal, in OpenAI's form; the answer is a record as JSON."""
    rng = random.Random(3)
    with open(path, "w", encoding="utf-8") as file:
        for number in range(rows):
            animal = rng.choice(ANIMALS)
            prompt = f"hit {animal} {number % 50}"
            turns = [("user", prompt), ("assistant", json.dumps({"animal": animal}))]
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"messages": messages}) + "\n")


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    return tiny_chat(folder / "tiny-chat")


@pytest.fixture(scope="module")
def project(folder: Path, base: Path) -> Project:
    write_conversations(folder / "reports.jsonl", 120)
    settings = {
        "read.uri": "reports.jsonl", "finetune.base": str(base), "finetune.lora": 4, "finetune.lr": 1e-2,
        "finetune.epochs": 3, "finetune.threads": 1, "evaluate.max_new_tokens": 24, "registry.name": "reports",
    }  # fmt: skip
    return Project(folder, settings)


@pytest.fixture(scope="module")
def run(project: Project) -> tuple[Run, str]:
    """The workflow's run, and what was printed."""
    said = project.raypath(*project.line(workflow="chat"))
    return project.last("chat")[0], said


@pytest.fixture(scope="module")
def loaded(project: Project, run: Any) -> LocalChat:
    found = raypath.load("models:/reports@champion", home=project.home)
    assert isinstance(found, LocalChat)
    return found


def test_it_ends_with_a_version_in_service(run: tuple[Run, str]) -> None:
    done, said = run
    assert [step.name for step in done.steps] == [
        *("read", "split", "configure", "inspect", "preprocess", "finetune"),
        *("evaluate_generation", "register", "serve"),
    ]
    assert "in service        reports version 1 at http://" in said
    assert "/v1/chat/completions" in said
    assert "reports version 1 @champion" in said
    assert "there was no champion" in said
    report, model = (done.step(name).artifact for name in ("evaluate_generation", "finetune"))
    assert report is not None
    assert model is not None
    assert model["metrics"]["loss"] < 5.2, "of 262 tokens, which are 5.6 nats by chance"
    assert report["metrics"]["loss"] < report["metrics"]["before/loss"] - 0.3
    assert "before 5." in said


def test_the_endpoint_answers_as_the_loaded_model(project: Project, run: tuple[Run, str], loaded: LocalChat) -> None:
    endpoint = run[0].step("serve").artifact
    assert endpoint is not None
    messages = [{"role": "user", "content": "hit owl 7"}]
    body = {"model": "reports", "messages": messages, "max_tokens": 8, "temperature": 0}
    found = project.ask(f"{endpoint['url']}/v1/chat/completions", body)
    assert found["choices"][0]["message"]["content"] == loaded.chat("hit owl 7", max_new_tokens=8)
    assert (found["model"], found["version"]) == ("reports", 1)


def test_the_adapter_is_registered_alone_and_finds_its_base(run: tuple[Run, str], loaded: LocalChat) -> None:
    names = {path.name for path in loaded.folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "raypath.json"} <= names
    assert not list(loaded.folder.glob("model*.safetensors"))
    answer = loaded.generate(["hit owl 7", [{"role": "user", "content": "hit gull 3"}]], max_new_tokens=8)
    assert [each.tokens <= 8 for each in answer] == [True, True]
    assert loaded.chat("hit owl 7", max_new_tokens=8) == answer[0].text


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")  # of MLflow's own classes, when it is imported
def test_mlflow_answers_a_request_of_openais_form(
    project: Project, run: tuple[Run, str], loaded: LocalChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    server = read(project.home).mlflow
    assert server is not None
    login.remember(server.address, mlflow_secret(project.home))
    login.install()
    # `mlflow.set_tracking_uri` would set the variable for all later tests.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    model = mlflow.pyfunc.load_model("models:/reports@champion")
    request = {"messages": [{"role": "user", "content": "hit owl 7"}], "max_tokens": 8}
    found = model.predict(request)
    assert found["choices"][0]["message"]["content"] == loaded.chat("hit owl 7", max_new_tokens=8)
    assert found["usage"]["completion_tokens"] <= 8
    names = [column.name for column in model.metadata.signature.inputs]
    assert names[:3] == ["messages", "temperature", "max_tokens"]


def test_a_file_of_conversations_is_answered(project: Project, loaded: LocalChat) -> None:
    line = ("predict", "models:/reports@champion", "reports.jsonl", "-s", "generate.max_new_tokens=6", "-o")
    assert "120 responses in answers.jsonl" in project.raypath(*line, "answers.jsonl")
    lines = [json.loads(line) for line in (project.folder / "answers.jsonl").read_text("utf-8").splitlines()]
    prompt = lines[0]["messages"][:1]
    assert lines[0]["answer"] == loaded.chat(prompt, max_new_tokens=6)
    assert set(lines[0]) == {"messages", "answer", "finish_reason"}
    project.raypath(*line, "again.parquet")
    assert [step.status for step in project.last("batch_generation")[0].steps] == ["reused", "reused"]
    assert pq.read_table(project.folder / "again.parquet")["answer"].to_pylist() == [line["answer"] for line in lines]


def test_a_second_version_is_compared_on_the_same_rows(project: Project, run: tuple[Run, str]) -> None:
    said = project.raypath(*project.line(workflow="chat", finetune__epochs=1))
    assert "reports version 2 @challenger" in said
    assert "version 1" in said
