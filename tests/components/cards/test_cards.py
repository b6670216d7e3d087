"""Cards of a model and of its data: the Hub's forms, Croissant, and nothing of a row or of this machine."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, ModelCard

from raypath.components.cards.croissant import croissant
from raypath.components.cards.data_card import data_card
from raypath.components.cards.data_facts import DataFacts, Statement, check_license, data_facts
from raypath.components.cards.facts import ModelFacts
from raypath.components.cards.model_card import model_card
from raypath.components.cards.model_sections import data_section, limits_section, training_section
from raypath.components.core.artifacts import Dataset, Splits
from raypath.components.core.columns import Column, Redaction, Role
from raypath.components.core.errors import ParamsError
from raypath.components.core.files import file_digest
from raypath.components.inspection.report import Finding, InspectionReport, Severity

COLUMNS = (
    Column(name="review|text"),
    Column(name="stars", kind="category", role=Role.TARGET, stored="label"),
    Column(name="tags", kind="set", role=Role.SLICE, stored="slices.tags"),
)
REPORT = InspectionReport(
    source="reviews.csv",
    rows=5,
    splits={"train": 3, "valid": 1, "test": 1},
    label_kind="class",
    columns=[],
    classes=[],
    lengths=None,
    languages={"en": 4, "zh": 1, "unknown": 1},
    personal_data={"email": 2},
    findings=[Finding(kind="leaks", severity=Severity.ERROR, text="1 row of train is in test", count=1)],
    skipped=[],
)


def _part(folder: Path, name: str, counts: list[int]) -> Dataset:
    (folder / name).mkdir(parents=True)
    for n, count in enumerate(counts):
        rows = {"text": ["secret text"] * count, "label": [1] * count, "slices.tags": [["a"]] * count}
        pq.write_table(pa.table(rows), folder / name / f"{n:05}.parquet")
    return Dataset(uri=str(folder / name), rows=sum(counts), columns=COLUMNS, source="/home/ana/reviews.csv")


@pytest.fixture
def facts(tmp_path: Path) -> DataFacts:
    parts = {"train": [2, 1], "valid": [1], "test": [1]}
    splits = Splits(**{name: _part(tmp_path, name, counts) for name, counts in parts.items()})
    read = Dataset(rows=5, columns=COLUMNS, source="/home/ana/reviews.csv")
    said = Statement("CC-BY-4.0", "Reviews of our shop.", "data@example.com")
    return data_facts(read, splits, date(2026, 11, 1), REPORT, said)


def test_a_data_card_is_read_by_the_hub(facts: DataFacts) -> None:
    card = DatasetCard(data_card(facts, "text_classification"))
    assert card.data.license == "cc-by-4.0"
    assert card.data.language == ["en", "zh"]
    assert card.data.size_categories == "n<1K"
    assert "| review\\|text | text | input |  |" in card.text
    assert "| train | 3 |" in card.text
    assert "email in 2 rows" in card.text
    assert "error: 1 row of train is in test" in card.text
    for private in ("/home/ana", "secret text"):
        assert private not in str(card)


def test_without_a_report_and_statements_the_card_says_so(facts: DataFacts, tmp_path: Path) -> None:
    from dataclasses import replace

    text = data_card(replace(facts, report=None, statement=Statement(), files=()))
    assert "Not searched for" in text
    assert "Not stated." in text
    assert "SHA-256" not in text


def test_croissant_names_files_by_their_digests_and_columns_by_their_names(facts: DataFacts, tmp_path: Path) -> None:
    found = json.loads(croissant(facts))
    files = {each["@id"]: each for each in found["distribution"]}
    assert set(files) == {
        *("train/00000.parquet", "train/00001.parquet", "valid/00000.parquet", "test/00000.parquet", "train-files")
    }
    first = files["train/00000.parquet"]
    assert first["sha256"] == file_digest(tmp_path / "train" / "00000.parquet")
    assert first["contentSize"] == f"{(tmp_path / 'train' / '00000.parquet').stat().st_size} B"
    records = {each["name"]: each["field"] for each in found["recordSet"]}
    text, label, tags = records["train"]
    assert (text["name"], text["dataType"], "repeated" in text) == ("review|text", "sc:Text", False)
    assert text["source"] == {"fileSet": {"@id": "train-files"}, "extract": {"column": "text"}}
    assert (label["name"], label["dataType"]) == ("stars", "sc:Integer")
    assert (tags["name"], tags["dataType"], tags["repeated"]) == ("tags", "sc:Text", True)
    assert records["test"][0]["source"]["fileObject"] == {"@id": "test/00000.parquet"}
    assert found["rai:personalSensitiveInformation"] == ["email: 2 rows"]
    assert found["rai:dataLimitations"] == ["1 row of train is in test"]
    assert "/home/ana" not in json.dumps(found)


def test_croissant_is_read_by_its_library(facts: DataFacts, tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    (tmp_path / "croissant.json").write_text(croissant(facts), encoding="utf-8")
    data = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json"))
    assert len(list(data.records("test"))) == 1


def test_a_model_card_has_results_for_the_hub_and_its_limits(facts: DataFacts) -> None:
    model = ModelFacts(
        name="reviews",
        version=3,
        task="text_classification",
        base="hf://BAAI/bge-small",
        data="1 rows of reviews.csv",
        metrics={"f1": 0.5},
    )
    worse = {"column": "tags", "value": "a", "rows": 40, "score": {"value": 0.5}, "others": 0.9, "worse": True}
    report = {"slice_metric": "f1", "slices": [worse], "classes": [{"label": "1", "rows": 3}]}
    more = [data_section(facts), training_section({"lr": 0.1, "lora": 0}, 61.4, "2026-11-01")]
    card = ModelCard(model_card(model, "hf", "What.", "Use.", [*more, limits_section(report, facts)]))
    assert card.data.base_model == "BAAI/bge-small"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("f1", 0.5)
    for line in (
        "- lr: 0.1",
        "tags a (40 rows): f1 0.5, against 0.9 elsewhere",
        "fewer than 10 test rows, whose metrics tell little: 1",
        "Data: 1 row of train is in test",
        "Languages of the data: en, zh",
    ):
        assert line in card.text
    assert "lora" not in card.text


def test_a_redaction_is_named(facts: DataFacts) -> None:
    from dataclasses import replace

    redacted = replace(facts, redaction=Redaction(version=1, kinds=("email",), replacement="type"))
    assert "Replaced before anything else, by type: email." in data_card(redacted)
    assert "was replaced before the training" in data_section(redacted)
    assert "email" in json.loads(croissant(redacted))["rai:dataPreprocessingProtocol"]


def test_a_license_is_an_spdx_name() -> None:
    check_license("CC-BY-4.0")
    check_license("")
    with pytest.raises(ParamsError, match="SPDX"):
        check_license("https://example.com/license")
