"""A replica behind a real HTTP server on loopback, without Ray, for clients, browsers and broken requests.

`python -m tests.components.serving.server FOLDER` makes a tiny classifier in a folder, prints the port that it
answers on, and
goes on until standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Model
from raypath.components.serving.params import ServeParams

LIMITS = ServeParams(
    threads=1,
    max_items=50,
    max_characters=500,
    max_body=100_000,
    request_timeout=20.0,
    batch=8,
    max_queue_seconds=30.0,
    body_timeout=1.0,
)


def service_of(models: Mapping[str, Model], settings: ServeParams = LIMITS, access: str = "") -> Any:
    """The real Service, which has these models as its versions 1; the first is the main one. access: folder of keys."""
    from raypath.components.models.metadata import read_metadata
    from raypath.components.serving.model_versions import ModelVersion, ReplicaPlan, Role
    from raypath.components.serving.replica.deployment import Service
    from raypath.components.serving.replica.loader import open_version
    from raypath.components.serving.spec import EndpointSpec

    name, *others = models
    main = models[name]
    spec = EndpointSpec(
        name=name, task=main.task, label_kind=main.label_kind, columns=read_metadata(Path(main.uri)).columns,
        tracking="", url="", route="/",
        serve=settings.model_copy(update={"extra_models": tuple(others)}), access=access, options={},
    )  # fmt: skip
    service: Any = Service.func_or_class.__mro__[1](spec.model_dump())  # type: ignore[attr-defined]
    loaded = {each: open_version(Path(model.uri), each, 1, threads=1) for each, model in models.items()}
    service.models.active[Role.MAIN] = loaded[name]
    extra_models = {each: ModelVersion(name=each, version=1) for each in others}
    service.models.pool.versions = extra_models
    service.models.pool.loaded.update((each, loaded[each]) for each in others)
    service.models.plan = ReplicaPlan(
        main=ModelVersion(name=name, version=1), extra_models=tuple(extra_models.values())
    )
    return service


async def _serve(service: Any, server: Any, listener: socket.socket) -> None:
    from raypath.components.inference.dynamic_batching import Batcher

    settings = service.spec.serve
    service.batcher = Batcher(settings.batch, settings.max_queue_seconds, 2)
    try:
        await server.serve(sockets=[listener])
    finally:
        service.batcher.close()


def _server(app: Any) -> Any:
    """As Ray Serve sets it up in a replica."""
    import uvicorn

    return uvicorn.Server(uvicorn.Config(app, lifespan="off", access_log=False, log_config=None, ws="none"))


@contextlib.contextmanager
def served(service: Any) -> Iterator[str]:
    """The address of a service that answers while the block runs."""
    server = _server(service.__serve_build_asgi_app__())
    try:
        with _running(server, lambda listener: _serve(service, server, listener)) as url:
            yield url
    finally:
        if (meter := getattr(server.config.app, "meter", None)) is not None:
            meter.close()


@contextlib.contextmanager
def served_app(app: Any) -> Iterator[str]:
    """The address of an ASGI application that answers while the block runs."""
    server = _server(app)
    with _running(server, lambda listener: server.serve(sockets=[listener])) as url:
        yield url


def listener() -> socket.socket:
    """A socket of loopback, whose connections send what is written at once.

    asyncio sees to that for sockets that name TCP; else each response, which is written in two pieces, waits 40 ms for
    a client that has nothing to send but an acknowledgement.
    """
    made = socket.create_server(("127.0.0.1", 0))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


@contextlib.contextmanager
def _running(server: Any, serve: Callable[[socket.socket], Coroutine[Any, Any, None]]) -> Iterator[str]:
    there = listener()
    thread = threading.Thread(target=lambda: asyncio.run(serve(there)))
    thread.start()
    try:
        end = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{there.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        there.close()


def main(folder: Path) -> None:
    """Serve a tiny classifier until standard input ends."""
    import os

    from tests.tiny_classifier import tiny_classifier

    service = service_of({"m": tiny_classifier(folder)})
    there = listener()
    print(there.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    asyncio.run(_serve(service, _server(service.__serve_build_asgi_app__()), there))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
