"""From odd rows with sets of labels to an endpoint and a file of predictions, in one project."""

import csv
import json
import random
from pathlib import Path

import pytest

from raypath.deploy.execution.run_history import Run
from tests.workflows.conftest import WORDS, Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("several")]
NAMES = tuple(sorted(WORDS))


def write_sets(path: Path, rows: int) -> None:
    """A CSV file with columns body and topics: each of three labels is there or not, and 1 row in 8 has none."""
    rng = random.Random(1)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "topics"])
        for number in range(rows):
            topics = [name for name in NAMES if rng.random() < 0.5]
            words = [word for name in topics for word in rng.choices(WORDS[name][:2], k=4)]
            writer.writerow([f"{number}, " + " ".join(words), "; ".join(topics)])


@pytest.fixture(scope="module")
def run(folder: Path, base_model: Path) -> tuple[Project, Run, str]:
    """The project after one run of the workflow, and what was printed."""
    write_sets(folder / "sets.csv", 240)
    settings = {
        "read.uri": "sets.csv", "read.text": "body", "read.label": "topics", "read.separator": ";",
        "finetune.base": base_model, "finetune.frozen_layers": -1, "finetune.epochs": 12, "finetune.lr": 3e-3,
        "finetune.head_factor": 1, "finetune.threads": 1, "finetune.batch_tokens": 128, "tune.trials": 0,
        "finetune.objective.class_weights": "balanced", "finetune.objective.focal": 0.5,
        "finetune.objective.label_smoothing": 0.02,
    }  # fmt: skip
    project = Project(folder, settings)
    said = project.raypath(*project.line(workflow="multi_label"))
    return project, project.last("multi_label")[0], said


def test_it_learns_reports_intervals_and_registers(run: tuple[Project, Run, str]) -> None:
    _, done, said = run
    report = done.step("evaluate").artifact
    assert report is not None
    metrics = report["metrics"]
    assert metrics["micro_f1"] > 0.7
    for name in ("micro_f1", "subset_accuracy"):
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert "genres version 1 @champion" in said
    assert "micro_f1" in said
    metadata = json.loads((Path(done.step("finetune").artifact["uri"]) / "raypath.json").read_text())  # type: ignore[index]
    assert (metadata["label_kind"], metadata["labels"], len(metadata["thresholds"])) == ("set", list(NAMES), 3)
    plots = {path.name for path in (Path(report["uri"]) / "plots").iterdir()}
    assert plots == {"reliability.png", "f1_per_class.png"}


def test_the_endpoint_answers_with_sets(run: tuple[Project, Run, str]) -> None:
    url = run[1].step("serve").artifact["url"]  # type: ignore[index]
    texts = [" ".join(WORDS[NAMES[0]][:2] * 4), " ".join(WORDS[NAMES[1]][:2] * 4), ""]
    found = run[0].ask(f"{url}/predict", {"text": texts})["predictions"]
    assert all({*row["labels"]} <= {*NAMES} == {*row["scores"]} for row in found)
    assert found[1]["scores"][NAMES[1]] > found[0]["scores"][NAMES[1]]
    schemas = run[0].ask(f"{url}/openapi.json")["components"]["schemas"]
    assert {"SetResponse", "SetPrediction"} <= set(schemas)


def test_a_file_is_predicted(run: tuple[Project, Run, str]) -> None:
    project, _, _ = run
    for out in ("out.csv", "out.jsonl"):
        chosen = ("-s", "read.text=body", "-s", "predict.scores=true")
        project.raypath("predict", "models:/genres@champion", "sets.csv", *chosen, "-o", out)
    lines = [json.loads(line) for line in (project.folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    with open(project.folder / "sets.csv", newline="", encoding="utf-8") as file:
        given = [{name for name in row["topics"].split("; ") if name} for row in csv.DictReader(file)]
    right = sum({*line["predicted"]} == wanted for line, wanted in zip(lines, given, strict=True))
    assert right > 0.3 * len(given), "of eight sets"
    with open(project.folder / "out.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == ["|".join(line["predicted"]) for line in lines]
    assert len(rows[0]["scores"].split("|")) == 3
