"""From odd rows with two numbers each to an endpoint and a file of predictions, in one project."""

import csv
import random
import statistics
from pathlib import Path

import pytest

from raypath.deploy.execution.run_history import Run
from tests.workflows.conftest import WORDS, Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("several")]
GOOD, BAD, PLAIN = WORDS.values()


def write_numbers(path: Path, rows: int) -> None:
    """A CSV file with columns body, price (thousands) and weight (around -3): each told by the words of the row."""
    rng = random.Random(2)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "price €", "weight"])
        for number in range(rows):
            good, bad = rng.randrange(7), rng.randrange(7)
            words = GOOD[:1] * good + BAD[:1] * bad + rng.choices(PLAIN, k=1)
            writer.writerow([f"{number}: " + " ".join(words), 5000 + 1000 * good, f"{-3 - 0.01 * bad:.4f}"])


@pytest.fixture(scope="module")
def run(folder: Path, base_model: Path) -> tuple[Project, Run, str]:
    """The project after one run of the workflow, and what was printed."""
    write_numbers(folder / "numbers.csv", 300)
    settings = {
        "read.uri": "numbers.csv", "read.text": "body", "read.label": "price €,weight", "finetune.base": base_model,
        "finetune.frozen_layers": -1, "finetune.epochs": 12, "finetune.lr": 3e-3, "finetune.batch_tokens": 128,
        "finetune.head_factor": 1, "finetune.threads": 1, "tune.trials": 0, "registry.name": "prices",
        "registry.better_on": "mae",
    }  # fmt: skip
    project = Project(folder, settings)
    said = project.raypath(*project.line(workflow="regression"))
    return project, project.last("regression")[0], said


def test_it_learns_reports_intervals_and_registers(run: tuple[Project, Run, str]) -> None:
    _, done, said = run
    report = done.step("evaluate").artifact
    assert report is not None
    metrics = report["metrics"]
    assert metrics["r2/price €"] > 0.4
    assert metrics["r2"] == pytest.approx((metrics["r2/price €"] + metrics["r2/weight"]) / 2)
    for name in ("r2", "mae", "spearman"):
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert "prices version 1 @champion" in said
    assert "because" in said
    assert "mae" in said
    plots = {path.name for path in (Path(report["uri"]) / "plots").iterdir()}
    assert plots == {"predicted.png", "residuals.png"}


def test_the_endpoint_answers_in_the_users_units(run: tuple[Project, Run, str]) -> None:
    url = run[1].step("serve").artifact["url"]  # type: ignore[index]
    texts = [" ".join(GOOD[:1] * 6 + PLAIN[:1]), " ".join(BAD[:1] * 6 + PLAIN[:1])]
    good, bad = (row["values"] for row in run[0].ask(f"{url}/predict", {"text": texts})["predictions"])
    assert 3000 < bad["price €"] < good["price €"] < 13000
    assert -3.2 < bad["weight"] < good["weight"] < -2.8
    assert {"NumberResponse", "NumberPrediction"} <= set(run[0].ask(f"{url}/openapi.json")["components"]["schemas"])


def test_the_status_tells_of_replicas_and_a_promotion_waits_for_them(run: tuple[Project, Run, str]) -> None:
    assert "prices version 1, 1 replica, " in run[0].raypath("status")
    assert "version 1 is champion and in service" in run[0].raypath("promote", "prices", "1")


def test_a_file_is_predicted(run: tuple[Project, Run, str]) -> None:
    project, _, _ = run
    said = project.raypath("predict", "models:/prices@champion", "numbers.csv", "-s", "read.text=body")
    assert "300 predictions in numbers.predictions.csv" in said
    with open(project.folder / "numbers.predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open(project.folder / "numbers.csv", newline="", encoding="utf-8") as file:
        given = [float(row["price €"]) for row in csv.DictReader(file)]
    assert list(rows[0]) == ["row", "text", "predicted_price €", "predicted_weight"]
    assert statistics.correlation([float(row["predicted_price €"]) for row in rows], given) > 0.6
