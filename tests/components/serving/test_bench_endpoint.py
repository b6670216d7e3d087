"""The endpoint as the serving bench sets it up and asks it, which nothing else runs every day."""

from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError

import pytest

from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.inference.engine import Engine
from tests.bench.serve_peers import endpoint
from tests.bench.servers import Setup, register_and_serve
from tests.bench.serving import agreement, press
from tests.tiny_classifier import LABELS, LENGTH, texts, tiny_classifier, tiny_dataset

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


@pytest.mark.slow
def test_it_asks_for_a_key_and_answers_as_the_engine(serve_url: str, mlflow_uri: str, tmp_path: Path) -> None:
    model, lines = tiny_classifier(tmp_path / "model"), texts(12)
    engine = Engine(Path(model.uri))
    rows = engine.task.decode(engine.record(TextTokenizer(Path(model.uri), LENGTH).encode(lines)))
    setup = Setup(
        folder=str(tmp_path),
        model=model.uri,
        texts=lines,
        labels=[LABELS[number] for number in rows.argmax(axis=1)],
        test=tiny_dataset(tmp_path / "data", model, rows=10),
        threads=1,
        serve={"start_timeout": 60.0},
    )
    register_and_serve(setup, tmp_path / "home", mlflow_uri, serve_url)
    served = endpoint(setup, serve_url)
    assert agreement(setup, served) == 1.0
    with pytest.raises(HTTPError, match="401"):
        replace(served, headers={}).request(lines[0])
    found = press(setup, served, clients=2, warm=2, seconds=0.5)
    assert found["errors"] == {}
    assert found["answered"] == found["sent"] > 0
