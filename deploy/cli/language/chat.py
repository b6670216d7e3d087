"""`raypath chat`: a conversation in the terminal, with an endpoint or with a model in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raypath.components.core.errors import ParamsError, RaypathError, UserError
from raypath.deploy.execution.run_history import load_runs

PATH = "/v1/chat/completions"
SECONDS = 600.0
"""Longest time of a response."""
Messages = list[dict[str, str]]
Respond = Callable[[Messages], Iterator[str]]


def chat(
    home: Path,
    url: str,
    model: str,
    message: str,
    system: str,
    settings: dict[str, Any],
    ca_file: Path | None = None,
) -> None:
    """Chat until the input ends, or respond to one message.

    Args:
        url: URL of the endpoint; "" takes the one that the last run of a language model has put in service.
        model: models:/NAME@ALIAS or a folder, which is loaded into this process instead; "" for the endpoint.
        message: Message to respond to; "" reads messages from standard input, a line each.
        system: System prompt, "" for none.
        settings: Sampling settings that are not None.
        ca_file: PEM file of the only authorities to trust for https; None: the system's and those of $RAYPATH_CA_FILE.

    Raises UserError without an endpoint, and what the endpoint or the model raises for a single message.
    """
    if model and (url or ca_file):
        raise ParamsError("an endpoint and --model exclude each other", fix="give one of them")
    given = {name: value for name, value in settings.items() if value is not None}
    messages: Messages = [{"role": "system", "content": system}] if system else []
    with _local(home, model, given) if model else _remote(home, url, given, ca_file) as respond:
        if message:
            _turn(respond, messages, message)
            return
        while (line := _read_line()) is not None:
            if line.strip():
                _talk(respond, messages, line.strip())


def _talk(respond: Respond, messages: Messages, text: str) -> None:
    """Respond to a message; an error, and Ctrl-C, end the response and not the conversation."""
    before = len(messages)
    try:
        _turn(respond, messages, text)
    except KeyboardInterrupt:
        print("\n(stopped)", file=sys.stderr)
        del messages[before:]
    except RaypathError as error:
        print(f"{error.what}; {error.fix}" if error.fix else error.what, file=sys.stderr)
        del messages[before:]


def _turn(respond: Respond, messages: Messages, text: str) -> None:
    """Print the response to a message as it comes, and add both to the conversation."""
    messages.append({"role": "user", "content": text})
    parts = []
    for part in respond(messages):
        parts.append(part)
        print(part, end="", flush=True)
    print(flush=True)
    messages.append({"role": "assistant", "content": "".join(parts)})


def _read_line() -> str | None:
    """Return the next line of standard input, None at its end."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        return None


@contextmanager
def _remote(home: Path, url: str, settings: dict[str, Any], ca_file: Path | None) -> Iterator[Respond]:
    """Yield the responses of an endpoint. The local key is sent to this home's endpoint only."""
    from raypath.components.serving.client.client import KEY, Client
    from raypath.components.serving.client.transport import no_check
    from raypath.components.tracking import http

    own = _last_endpoint(home)
    url, key = url.rstrip("/") or own, os.environ.get(KEY)
    if not url:
        fix = "raypath run chat, give a URL, or --model models:/NAME@champion for a model in this process"
        raise UserError("no run of this project has put a language model in service", fix=fix)
    check, verify = no_check, True if ca_file is None else ca_file
    if key is None and url == own and (file := home / "access" / "local.key").is_file():
        key, check = file.read_text(encoding="utf-8").strip(), http.check_listener
    with Client(url, key, timeout=SECONDS, verify=verify, check=check) as client:
        yield lambda messages: client.stream_chat(messages, **settings)


@contextmanager
def _local(home: Path, model: str, settings: dict[str, Any]) -> Iterator[Respond]:
    """Yield the responses of a model in this process. Raises ParamsError for a model that generates no text."""
    from raypath.components.inference.generation.local_chat import LocalChat
    from raypath.deploy.api.models import load

    names = {"max_tokens": "max_new_tokens"}
    chosen = {names.get(name, name): value for name, value in settings.items()}
    loaded = load(model, home=home)
    if not isinstance(loaded, LocalChat):
        raise ParamsError(f"{model} predicts, and generates no text", fix="use `raypath predict`")
    yield lambda messages: loaded.stream(messages, **chosen)


def _last_endpoint(home: Path) -> str:
    """Return the URL of the language model that the last run has put in service, "" for none."""
    for run in reversed(load_runs(home)):
        for step in reversed(run.steps):
            if (found := step.artifact) and found.get("path") == PATH:
                return str(found["url"])
    return ""
