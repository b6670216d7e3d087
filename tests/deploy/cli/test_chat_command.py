"""`raypath chat`: a conversation in the terminal, with an endpoint and with a model in this process."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import raypath
from raypath.components.core.errors import RaypathError
from raypath.components.serving.client.errors import RequestError
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.deploy.cli import main as cli
from raypath.deploy.cli.language import chat as command
from tests.components.serving.language.chat_server import chat_model, language_service, served_chat
from tests.raised import raised

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A service with keys, and the folder of its model."""
    folder = tmp_path_factory.mktemp("chat")
    model = chat_model(folder / "model", max_position_embeddings=512)
    _, key = KeyStore(folder / "keys").create("anna", ["chat"])
    service = language_service({"m": model}, access=str(folder / "keys"))
    with served_chat(service) as url:
        yield SimpleNamespace(url=url, key=key, model=model, service=service)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: SimpleNamespace) -> None:
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAYPATH_API_KEY", place.key)


def _said(capsys: pytest.CaptureFixture[str], *args: str, status: int = 0) -> tuple[str, str]:
    assert cli.main(["chat", *args]) == status
    found = capsys.readouterr()
    return found.out, found.err


GREEDY = ("--temperature", "0", "--max-tokens", "8")


def test_the_endpoint_and_the_model_here_respond_alike(
    place: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = _said(capsys, "hi", "--url", place.url, "--system", "Be brief.", *GREEDY)
    assert err == ""
    assert len(out) > 1
    assert _said(capsys, "hi", "--model", str(place.model), "--system", "Be brief.", *GREEDY)[0] == out
    assert _said(capsys, "hi", "--url", place.url, *GREEDY)[0] != out, "the system prompt counts"


def test_lines_of_standard_input_are_a_conversation(
    place: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    @contextmanager
    def remote(*_: Any) -> Iterator[Any]:
        def respond(messages: Any) -> Iterator[str]:
            asked.append([each["content"] for each in messages])
            if messages[-1]["content"] == "fail":
                raise RaypathError("it failed", fix="again")
            yield from ("a", "b")

        yield respond

    monkeypatch.setattr(command, "_remote", remote)
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\nfail\ntwo\n"))
    assert _said(capsys) == ("ab\nab\n", "it failed; again\n")
    assert asked == [["one"], ["one", "ab", "fail"], ["one", "ab", "two"]], "what failed is no part of it"


def test_mistakes_are_one_line(place: SimpleNamespace, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    both = _said(capsys, "hi", "--url", place.url, "--model", "m", status=2)[1]
    assert both == "raypath: an endpoint and --model exclude each other; give one of them\n"
    none = _said(capsys, "hi", status=2)[1]
    assert none.startswith("raypath: no run of this project has put a language model in service; raypath run chat")
    wrong = _said(capsys, "hi", "--url", place.url, "--temperature", "9", status=2)[1]
    assert "temperature" in wrong


def test_the_client_chats(place: SimpleNamespace) -> None:
    with raypath.Client(place.url, place.key) as client:
        found = client.chat("hi", temperature=0, max_tokens=8)
        assert (found.model, found.version, found.finish, found.tokens) == ("m", 1, "length", 8)
        assert "".join(client.stream_chat("hi", temperature=0, max_tokens=8)) == found.text
        said = raised(lambda: client.chat("hi", temperature=9))
        assert "rejected the request with 400: temperature" in said
        with pytest.raises(RequestError, match="400"):
            next(client.stream_chat("hi", n=1_000))
        stream = client.stream_chat("hi", max_tokens=400)
        next(stream)
        stream.close()  # type: ignore[attr-defined]


def test_a_stream_that_breaks_off_is_an_error(place: SimpleNamespace) -> None:
    real = place.service.models.main.engine.engine.step
    steps: list[int] = []

    def step() -> Any:
        steps.append(1)
        if len(steps) > 3:
            raise RuntimeError("broken")
        return real()

    place.service.models.main.engine.engine.step = step
    with raypath.Client(place.url, place.key) as client:
        said = raised(lambda: list(client.stream_chat("hi", max_tokens=100)))
    assert "Unavailable" in said
    assert "the engine of the model failed" in said
