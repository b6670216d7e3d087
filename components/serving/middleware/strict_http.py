"""Rejection of trailers by uvicorn, which adds them to the headers of a request (HttpToolsProtocol, 0.54).

A trailer would otherwise pass the filters of a proxy in front, which see the headers only, as a key, a timeout or a
request id. With h11 instead of httptools uvicorn ignores trailers.
"""

from __future__ import annotations

from typing import Any


def reject_trailers() -> None:
    """Make the HTTP servers that this process starts from now on reject a request with trailers with 400."""
    from uvicorn.protocols.http import auto

    if auto.AutoHTTPProtocol.__name__ == "HttpToolsProtocol":
        auto.AutoHTTPProtocol = _strict(auto.AutoHTTPProtocol)


class _Complete(list[tuple[bytes, bytes]]):
    """Headers of a request whose body has begun."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        raise ValueError("the request has trailers")


def _strict(protocol: Any) -> Any:
    """Return a subclass of uvicorn's HttpToolsProtocol."""

    class StrictProtocol(protocol):  # type: ignore[misc]
        headers: list[tuple[bytes, bytes]]
        within_body = False

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            # The list in the request's scope stays as it is. A trailer makes the parser fail.
            self.headers = _Complete(self.headers)
            self.within_body = True

        def on_message_complete(self) -> None:
            self.within_body = False
            super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            if self.within_body and self.cycle is not None and self.cycle.response_started:
                self.transport.close()  # a second response would be taken for that of the next request
            else:
                super().send_400_response(msg)

    return StrictProtocol
