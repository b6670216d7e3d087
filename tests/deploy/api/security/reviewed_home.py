"""A home as runs and commands leave it, made in milliseconds by the functions that write its files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import DataReport, Dataset, Endpoint, Model, Release, Report
from raypath.components.core.labels import LabelKind
from raypath.components.inspection.report import Finding, InspectionReport, Severity
from raypath.components.registry.signing.keys import ensure_key, signing_key
from raypath.components.registry.signing.records import sign_promotion, sign_version
from raypath.components.registry.tags import CHAMPION
from raypath.components.reports.evaluation.contents import Coverage, Estimate, EvaluationReport, Slice
from raypath.components.reports.page.files import write_files
from raypath.components.tracking.tags import PREVIOUS_CHAMPION, PROMOTION, SIGNATURE
from raypath.deploy.execution import run_history
from raypath.deploy.execution.run_history import RunStatus, StepStatus
from raypath.deploy.store.store import Record, Store
from raypath.workflows.chat import chat
from raypath.workflows.multi_label import multi_label
from raypath.workflows.text_classification import text_classification

WORKFLOWS = {"multi_label": multi_label, "text_classification": text_classification, "chat": chat}


class ReviewedHome:
    """Builder of a home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "home").open()
        self.home = self.store.home
        self.home.chmod(0o700)

    def run(
        self,
        workflow: str = "text_classification",
        *,
        endpoint: bool = True,
        inspected: InspectionReport | None = None,
        evaluated: EvaluationReport | None = None,
        cluster: str = "",
        serving: int = 1,
        **settings: Any,
    ) -> None:
        """A completed run with its reports in the store; settings have __ in place of dots."""
        changes = {name.replace("__", "."): value for name, value in settings.items()}
        flow: Any = WORKFLOWS[workflow]
        params = flow.params_type().override(changes).flat()
        steps = ["inspect", "evaluate", "register", "serve"]
        run = run_history.begin(self.home, workflow, str(time.time_ns()), params, steps, cluster=cluster)
        metrics = {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.95} if evaluated else {}
        data = Dataset(uri="", rows=evaluated.rows if evaluated else 0, label_kind=LabelKind.STRING)
        task = "text_generation" if workflow == "chat" else "text_classification"
        made: dict[str, Any] = {}
        if inspected:
            made["inspect"] = self._commit("inspect", DataReport(rows=inspected.rows, metrics={}), inspected)
        if evaluated:
            model = Model(task=task, base="tiny", max_length=8)
            made["evaluate"] = self._commit("evaluate", Report(model=model, data=data, metrics=metrics), evaluated)
        if serving != 1:
            fields = {"name": "topics", "version": 1, "alias": "challenger", "reason": "worse", "serving": serving}
            made["register"] = Release(**fields)
        if endpoint:
            made["serve"] = Endpoint(url="http://127.0.0.1:1", name="topics", version=1)
        for name, artifact in made.items():
            run.step(name).status = StepStatus.DONE
            run.step(name).artifact = artifact.model_dump(mode="json")
        run_history.end(self.home, run, RunStatus.DONE, time.time())

    def _commit(self, step: str, artifact: Any, report: Any) -> Any:
        attempt = self.store.attempt(step)
        write_files(attempt, "<p>", report)
        record = Record(
            key=f"{step}{time.time_ns()}", step=step, component="", key_inputs={}, artifact={}, started=0.0, seconds=0.0
        )
        return self.store.commit(record, artifact, attempt)

    def registered(self, version: int, *, champion: bool = False, previous: int = 0, **tags: str) -> None:
        """A signed version in MLflow's own tables. tags: further ones, set after it was signed."""
        from mlflow.store.db.base_sql_model import Base
        from mlflow.store.model_registry.dbmodels import models
        from sqlalchemy import create_engine
        from sqlalchemy.orm import Session

        file = self.home / "mlflow" / "mlflow.db"
        file.parent.mkdir(exist_ok=True)
        engine = create_engine(f"sqlite:///{file}")
        kinds = (models.SqlRegisteredModel, models.SqlModelVersion, models.SqlModelVersionTag)
        Base.metadata.create_all(engine, [kind.__table__ for kind in (*kinds, models.SqlRegisteredModelAlias)])
        ensure_key(self.home / "signing")
        key = signing_key(self.home / "signing")
        values = {SIGNATURE: sign_version(key, "topics", version, "digest", {})}
        if champion:
            values |= {PROMOTION: sign_promotion(key, "topics", version, previous, "")}
            values |= {PREVIOUS_CHAMPION: str(previous)} if previous else {}
        with Session(engine) as session:
            session.merge(models.SqlRegisteredModel(workspace="default", name="topics"))
            what = "Task `text_classification`, base `tiny`."
            session.add(models.SqlModelVersion(name="topics", version=version, description=what))
            for name, value in {**values, **tags}.items():
                session.merge(models.SqlModelVersionTag(name="topics", version=version, key=name, value=value))
            if champion:
                session.merge(models.SqlRegisteredModelAlias(name="topics", alias=CHAMPION, version=version))
            session.commit()
        engine.dispose()


def data_report(errors: int = 0, **personal: int) -> InspectionReport:
    """A data report of 100 rows with these kinds of personal data."""
    fault = Finding(kind="leaks", severity=Severity.ERROR, text="3 rows are in two splits", count=3)
    return InspectionReport(
        source="data.csv",
        rows=100,
        splits={},
        label_kind="class",
        columns=[],
        classes=[],
        lengths=None,
        languages={},
        personal_data=personal,
        findings=[fault] * errors,
        skipped=[],
    )


def evaluation(*slices: tuple[str, str, bool]) -> EvaluationReport:
    """An evaluation of 50 rows. slices: column, value, and True for one that is worse."""
    found = [
        Slice(column=column, value=value, rows=20, score=Estimate(value=0.8), others=0.9, p=0.01, worse=worse)
        for column, value, worse in slices
    ]
    coverage = [Coverage(confidence=0.9, rows=0.5, accuracy=0.99)] if slices else []
    return EvaluationReport(
        source="",
        rows=50,
        task="",
        base="",
        model="",
        test="",
        metrics={},
        slices=found,
        slice_metric="accuracy",
        coverage=coverage,
    )
