"""`raypath predict URL DATA --encrypted BASE`, against a real endpoint, and `raypath export --to encoder`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath import Client
from raypath.components.core.errors import DataError
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.deploy.cli import main as cli
from raypath.deploy.cli.prediction.encrypted import read_texts
from tests.components.serving.server import LIMITS, served, service_of
from tests.tiny_classifier import texts, tiny_classifier

pytest.importorskip("tenseal", reason="the extra he is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """URL, API key, and a folder with the models m and n."""
    folder = tmp_path_factory.mktemp("models")
    models = {"m": tiny_classifier(folder / "m"), "n": tiny_classifier(folder / "n", kind="set", seed=1)}
    key = KeyStore(folder / "access").create("a", ["predict"])[1]
    settings = LIMITS.model_copy(update={"encrypted": True, "max_body": 2_000_000})
    with served(service_of(models, settings, access=str(folder / "access"))) as url:
        yield url, key, folder


def _run(*words: str) -> int:
    return cli.main(list(words))


def test_the_predictions_of_a_text_file_are_the_plain_ones(
    place: tuple[str, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, key, folder = place
    monkeypatch.setenv("RAYPATH_API_KEY", key)
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))
    lines, base = texts(9), str(tmp_path / "encoder")
    assert _run("export", str(folder / "m"), "--to", "encoder", base) == 0
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    assert _run("predict", url, str(tmp_path / "in.txt"), "--encrypted", base) == 0
    assert f"9 predictions of m 1 in {tmp_path / 'in.predictions.csv'}" in capsys.readouterr().out
    with open(tmp_path / "in.predictions.csv", newline="") as file:
        found = list(csv.DictReader(file))
    with Client(url, key) as client:
        plain = client.predict(lines)
    assert [row["text"] for row in found] == lines
    assert [row["predicted"] for row in found] == [each.label for each in plain]
    assert [float(row["score"]) for row in found] == pytest.approx([each.score for each in plain], abs=0.05)


def test_another_model_and_a_column(
    place: tuple[str, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, key, folder = place
    monkeypatch.setenv("RAYPATH_API_KEY", key)
    pq.write_table(pa.table({"review": texts(3), "other": [1, 2, 3]}), tmp_path / "in.parquet")
    out, data = tmp_path / "out.parquet", str(tmp_path / "in.parquet")
    base = str(folder / "n")
    assert _run("predict", f"{url}/models/n", data, "--encrypted", base, "-o", str(out), "-s", "read.text=review") == 0
    with Client(url, key, model="n") as client:
        wanted = [each.labels for each in client.predict(texts(3))]
    assert pq.read_table(out)["predicted"].to_pylist() == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["models:/m@champion", "in.txt"], "--encrypted needs an endpoint, not models:/m@champion; give its URL"),
        (["http://127.0.0.1:9", "none.txt"], "none.txt does not open"),
        (["http://127.0.0.1:9", "in.txt", "-o", "a.pdf"], "-o a.pdf: unknown format"),
        (["http://127.0.0.1:9", "in.txt", "-s", "read.kind=set"], "read.kind is no setting of encrypted predictions"),
        (["http://127.0.0.1:9", "in.csv"], "in.csv has no column text; it has review; set -s read.text=COLUMN"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_sent(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("tea\n")
    Path("in.csv").write_text("review\ntea\n")
    assert _run("predict", *words, "--encrypted", "base") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("name", "data"), [("a.txt", b"\xff\xfe"), ("a.txt", b""), ("a.txt", b"a\n\nb\n"), ("a.doc", b"a")]
)
def test_a_file_without_texts_is_named(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=r"UTF-8|no texts|row 2 has no text|unknown format"):
        read_texts(tmp_path / name, "text")
