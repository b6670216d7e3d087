"""A service with keys as Ray's replica holds it: `python -m tests.bench.behind FOLDER`.

What Ray does with a request before the application sees it is done here by Ray's own functions, without Ray. Prints
the port and a key, and goes on until standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.middleware import edge
from tests.components.serving import server
from tests.tiny_classifier import tiny_classifier


class Replica:
    """ASGI middleware that reads headers as a replica does, and answers HAProxy that it is well."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from ray.serve._private import http_util as ray

        if scope["path"] == "/-/healthz":
            for message in ray.convert_object_to_asgi_messages("success", status_code=200):
                await send(message)
            return
        headers = dict(scope["headers"])
        headers.get(b"x-request-id", b"").decode()
        ray.parse_disconnect_disabled_header(headers)
        ray.parse_request_timeout_header(headers, None)
        ray.parse_session_id_header(headers)
        await self.app(scope, receive, send)


def main(folder: Path) -> None:
    """Serve a tiny classifier to whoever has the key."""
    from ray.serve._private.http_util import _apply_middlewares

    _, key = KeyStore(folder / "keys").create("fuzz", ["predict", "embed"])
    service = server.service_of({"m": tiny_classifier(folder / "m")}, access=str(folder / "keys"))
    app = _apply_middlewares(Replica(service.__serve_build_asgi_app__()), edge.middlewares())
    there = server.listener()
    print(there.getsockname()[1], key, flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    asyncio.run(server._serve(service, server._server(app), there))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
