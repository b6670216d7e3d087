"""Photograph the endpoint's page and MLflow's views in a headless Chromium."""

import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from mlflow import MlflowClient
from playwright.sync_api import Browser, Page, sync_playwright

from raypath.components.tracking import login
from raypath.components.tracking.experiments import runs_path
from raypath.deploy.execution.run_history import Run
from raypath.deploy.local.services import login_url, tracking_uri

TEXT = "Great taste, and it arrived early. My only complaint is that the bag is small."


def photograph(home: Path, run: Run, images: Path) -> None:
    """Write endpoint.png, evaluation.png, mlflow-runs.png, mlflow-run.png and mlflow-model.png to `images`.

    Of a run with a search (tune.trials=8), mlflow-trials.png as well.
    """
    endpoint = run.step("serve").artifact
    release = {**run.step("register").artifact, "workflow": run.workflow}
    mlflow = tracking_uri(home)
    login.install()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        _endpoint(browser, endpoint["url"], (home / "access" / "local.key").read_text().strip(), images)
        _report(browser, Path(run.step("evaluate").artifact["uri"]) / "report.html", images)
        _mlflow(browser, mlflow, login_url(home), release, images)
        browser.close()


def _page(browser: Browser, width: int, height: int) -> Page:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(30_000)
    return page


def _endpoint(browser: Browser, url: str, key: str, images: Path) -> None:
    page = _page(browser, 900, 700)
    page.goto(url)
    page.locator("#key").fill(key) if page.locator("#key").is_visible() else None
    page.fill("#text", TEXT)
    page.click("#ask")
    page.wait_for_selector(".row.first")
    page.screenshot(path=images / "endpoint.png", full_page=True)


def _report(browser: Browser, path: Path, images: Path) -> None:
    page = _page(browser, 1000, 1500)
    page.goto(path.as_uri())
    page.screenshot(path=images / "evaluation.png")


def _mlflow(browser: Browser, uri: str, link: str, release: dict[str, Any], images: Path) -> None:
    client = MlflowClient(uri)
    [experiment] = client.search_experiments(filter_string=f"name = '{release['workflow']}'")
    [run] = client.search_runs([experiment.experiment_id], "metrics.`train/loss` > 0", max_results=1)  # the latest
    page = _page(browser, 1900, 760)
    page.goto(link)
    page.wait_for_url(f"{uri}/#/experiments")
    page.goto(f"{uri}{runs_path(experiment.experiment_id)}")
    page.wait_for_selector("text=evaluate/macro_f1")
    page.wait_for_timeout(3_000)
    page.screenshot(path=images / "mlflow-runs.png", clip={"x": 0, "y": 0, "width": 1900, "height": 400})
    page.set_viewport_size({"width": 1280, "height": 760})
    page.goto(f"{uri}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill("train/|valid/")
    page.wait_for_selector(".js-plotly-plot")
    page.wait_for_timeout(4_000)  # the other plots
    page.screenshot(path=images / "mlflow-run.png")
    page.goto(f"{uri}/#/models/{release['name']}")
    page.wait_for_selector("text=@ champion")
    page.goto(f"{uri}/#/models/{release['name']}/versions/{release['version']}")
    page.wait_for_selector("text=metric on the test split")
    page.wait_for_timeout(2_000)
    page.screenshot(path=images / "mlflow-model.png", clip={"x": 0, "y": 0, "width": 1280, "height": 720})
    _trials(page, uri, client.search_runs([experiment.experiment_id], "tags.`raypath.kind` = 'trial'"), images)


def _trials(page: Page, uri: str, trials: list[Any], images: Path) -> None:
    """Photograph MLflow's comparison of the trials of a search, with the searched settings and the loss on valid."""
    if not trials:
        return
    chosen = {"runs": [trial.info.run_id for trial in trials], "experiments": [trials[0].info.experiment_id]}
    page.goto(f"{uri}/#/compare-runs?{urlencode({key: json.dumps(value) for key, value in chosen.items()})}")
    page.wait_for_selector(".js-plotly-plot")
    page.wait_for_timeout(3_000)
    page.screenshot(path=images / "mlflow-trials.png", clip={"x": 0, "y": 0, "width": 1280, "height": 620})
