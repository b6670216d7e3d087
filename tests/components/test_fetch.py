"""A version is fetched with all that training needs to start from it."""

from pathlib import Path
from typing import Any

import pytest

from raypath.components import Context, Model
from raypath.components.core.artifacts import Report
from raypath.components.core.context import Tracking
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.labels import LabelKind
from raypath.components.fetch import FetchParams, fetch
from raypath.components.models.adapters import names_base
from raypath.components.models.conversion.packaged import CHAT
from raypath.components.models.metadata import ModelMetadata, read_metadata, write_metadata
from raypath.components.register import RegisterParams, register
from tests.tiny_classifier import tiny_classifier, tiny_dataset
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


def test_auto_is_the_champion_unless_a_base_is_set() -> None:
    params = FetchParams(model="auto")
    assert params.resolved("helpdesk", "auto") == FetchParams(model="models:/helpdesk@champion", base=CHAT)
    assert params.resolved("helpdesk", "hf://team/base").model == ""
    assert FetchParams(model="models:/other/3").resolved("helpdesk", "hf://team/base").model == "models:/other/3"


def _context(uri: str, folder: Path, key: str) -> Context:
    for name in ("out", "scratch"):
        (folder / key / name).mkdir(parents=True)
    tracking = Tracking(uri=uri, experiment="fetch", spool=str(folder / key / "spool"))
    return Context("fetch", folder / key / "out", folder / key / "scratch", workers=1, tracking=tracking, key=key)


def _register(uri: str, folder: Path, key: str, name: str, accuracy: float, start: str = "") -> None:
    """Register a model as the champion: no other has the metric by row."""
    model = tiny_classifier(folder / key / "model").model_copy(update={"version": start})
    data = tiny_dataset(folder / key / "data", model, rows=10)
    report = Report(model=model, data=data, metrics={"macro_f1": accuracy})
    register.fn(_context(uri, folder, key), model, report, RegisterParams(name=name))


@pytest.mark.filterwarnings("ignore::UserWarning:mlflow")
def test_a_champion_is_fetched_again_unless_it_was_trained_from_the_one_before(
    mlflow_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from raypath.components.registry import client as registry
    from raypath.components.registry.aliases import set_champion

    name, alive = tmp_path.name.replace("_", "-"), fetch.alive
    assert alive is not None
    base = decoder_folder(tmp_path / "base")
    params = FetchParams(model=f"models:/{name}@champion", base=str(base))
    ctx = _context(mlflow_uri, tmp_path, "first")
    started: Model = fetch.fn(ctx, params)
    warning = f"{name} has no champion: training starts from {base}; `raypath run chat -s registry.name={name}` first"
    assert warning in caplog.text
    assert (started.base, started.version, started.alias) == (str(base), f"{name}/0", "champion")
    assert names_base(ctx.out), "its adapters name the base, not the copy"
    assert alive(ctx, started)
    with pytest.raises(DataError):
        fetch.fn(_context(mlflow_uri, tmp_path, "none"), FetchParams(model=params.model))

    _register(mlflow_uri, tmp_path, "one", name, 0.5, started.version)
    assert alive(ctx, started), "version 1 was trained from the base"
    found = fetch.fn(_context(mlflow_uri, tmp_path, "second"), params)
    assert (found.version, found.alias) == (f"{name}/1", "champion")
    assert alive(ctx, found)
    for number, (key, start) in enumerate((("two", found.version), ("three", "")), start=2):
        _register(mlflow_uri, tmp_path, key, name, 0.6, start)
        with registry.mlflow_client(mlflow_uri) as client:
            set_champion(client, name, number)
        assert alive(ctx, found) == (start != ""), f"version {number}"
    pinned = fetch.fn(_context(mlflow_uri, tmp_path, "third"), FetchParams(model=f"models:/{name}/1"))
    assert (pinned.version, pinned.alias) == (f"{name}/1", "")
    assert alive(ctx, pinned), "a number never moves"
