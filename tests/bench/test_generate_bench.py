"""The benchmark of streaming generation: sizes of prompts, clients against a real server, tables."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bench.generate.__main__ import cells_of, options
from tests.bench.generate.client import StreamLoad, figures, run
from tests.bench.generate.offline import measure
from tests.bench.generate.prompts import Cell, bodies
from tests.bench.generate.summary import tables
from tests.components.serving.language.chat_server import LIMITS, chat_model, language_service, served_chat

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:pydantic"),
]
CELL = Cell(clients=2, prompt=60, tokens=6)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A tiny model's folder and its service."""
    folder = chat_model(tmp_path_factory.mktemp("bench-chat"), max_position_embeddings=1024)
    settings = LIMITS.model_copy(update={"max_characters": 50_000})
    return SimpleNamespace(folder=folder, service=language_service({"m": folder}, settings))


def load(url: str, seconds: float, **more: Any) -> StreamLoad:
    made = [json.dumps({"model": "m", **body, **more}) for body in bodies(CELL, CELL.requests, 0)]
    return StreamLoad(
        url=f"{url}/v1/chat/completions", bodies=made, clients=CELL.clients, seconds=seconds, tokenizer=""
    )


def test_clients_measure_streams_of_a_server(chat: SimpleNamespace) -> None:
    with served_chat(chat.service) as url:
        found = figures(*asyncio.run(run(load(url, 20.0))), len)
        wrong = figures(*asyncio.run(run(load(url, 20.0, max_tokens=0))), len)
        cut = figures(*asyncio.run(run(load(url, 0.0))), len)
    assert (found["complete"], found["sent"], found["without_text"], found["errors"]) == (4, 4, 0, {})
    assert found["tokens"] > 4
    assert 0 < found["first_p50_ms"] <= found["first_p95_ms"] < 1e3 * found["seconds"]
    assert found["tokens_s"] == pytest.approx(found["tokens"] / found["seconds"])
    assert wrong["errors"] == {"400": 4}
    assert (cut["complete"], cut["errors"]) == (0, {}), "open streams are closed, which is no error"


def test_the_engine_alone_gets_the_same_requests(chat: SimpleNamespace) -> None:
    model = chat.service.models.main
    found = measure(model.engine.engine, model.template, CELL, 0, 20.0)
    assert found["tokens"] == CELL.requests * CELL.tokens
    assert found["first_p95_ms"] < 1e3 * found["seconds"]
    assert not model.engine.engine.has_work()


def test_prompts_have_about_their_size_and_differ() -> None:
    """By words: each and its comma are two tokens of the sample model."""
    for shared in (False, True):
        cell = Cell(clients=8, prompt=1_000, tokens=64, shared=shared)
        made = [body["messages"] for body in bodies(cell, 4, 1)]
        texts = [" ".join(message["content"] for message in messages) for messages in made]
        assert all(880 <= 2 * len(text.split(", ")) <= 1_000 for text in texts)
        assert len({messages[-1]["content"] for messages in made}) == 4
        assert len({messages[0]["content"] for messages in made}) == (1 if shared else 4)
    assert list(bodies(CELL, 2, 1)) == list(bodies(CELL, 2, 1)), "all servers get the same"


def test_tables_take_ratios_within_a_round() -> None:
    def cell(speed: float) -> list[dict[str, Any]]:
        return [{"tokens_s": speed, "first_p50_ms": 1.0, "first_p95_ms": 2.0, "token_ms": None, "errors": {"429": 1}}]

    rounds = {"raypath": [cell(90.0), cell(40.0)], "offline": [cell(100.0), cell(50.0)]}
    [[ours, offline]] = tables(rounds, [CELL])
    assert (ours["/ offline"], ours["/ raypath"], ours["errors"]) == ("0.85", "", 2)
    assert (offline["tokens/s"], offline["ms/token"]) == ("75 (50-100)", "")


def test_options(tmp_path: Path) -> None:
    short, whole = options(["--short", "--out", str(tmp_path)]), options(["--out", str(tmp_path)])
    assert (short.rounds, whole.rounds) == (1, 3)
    assert (len(cells_of(short)), len(cells_of(whole))) == (4, 12)
    with pytest.raises(SystemExit):
        options(["--out", "."])
