"""A version is fetched with all that training needs to start from it."""

from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.labels import LabelKind
from raypath.components.fetch import FetchParams, fetch
from raypath.components.models.metadata import ModelMetadata, read_metadata, write_metadata
from tests.tiny_decoders import decoder_folder


def test_a_model_has_its_weights_tokenizer_template_and_metadata(make_context: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = decoder_folder(tmp_path / "version")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "precision.json").write_text("{}")
    metadata = ModelMetadata(
        task="text_generation", labels=(), label_kind=LabelKind.NONE, max_length=64, base="hf://team/base"
    )
    write_metadata(folder, metadata)
    ctx = make_context("fetch")
    made = fetch.fn(ctx, FetchParams(model=str(folder)))
    assert (made.task, made.base, made.max_length) == ("text_generation", "hf://team/base", 64)
    assert read_metadata(ctx.out) == metadata
    assert not (ctx.out / "precision.json").exists(), "what belongs to the version alone"
    assert (ctx.out / "chat_template.jinja").exists()
    AutoTokenizer.from_pretrained(ctx.out)
    AutoModelForCausalLM.from_pretrained(ctx.out)


def test_what_cannot_be_fetched_is_told(make_context: Any, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="set models:/NAME@champion"):
        fetch.fn(make_context("fetch"), FetchParams())
    with pytest.raises(DataError):
        fetch.fn(make_context("fetch"), FetchParams(model=str(tmp_path)))
