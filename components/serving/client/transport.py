"""Send a request with retries, over httpx. httpx is imported with the first request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from raypath.components.core.errors import RaypathError, Unavailable
from raypath.components.serving.client.errors import RequestError, TooManyRequests
from raypath.components.serving.client.retries import RETRIED, Budget, retry_after
from raypath.components.tracking import trust

if TYPE_CHECKING:
    import httpx

LOOPBACK = ("127.0.0.1", "localhost", "::1")
FIXES = {
    401: "give a valid key; `raypath keys create NAME` makes one",
    403: "use a key with that scope (`raypath keys create NAME --scopes predict,embed,chat`)",
    404: "check the URL and the model's name; `raypath status` shows both",
}


@dataclass(frozen=True)
class Request:
    """Method, path below the endpoint's URL, and a JSON body, or one of bytes."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    content: bytes | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of httpx for the body."""
        if self.content is None:
            return {"json": self.body}
        return {"content": self.content, "headers": {"content-type": "application/octet-stream"}}


Check = Callable[[str], None]
"""Check of the URL before a request. Raises ConnectionError where the key must not be sent."""


def no_check(url: str) -> None:
    """Send every request."""


class SyncTransport:
    """Blocking requests; one pool of connections for all threads."""

    def __init__(self, url: str, headers: Mapping[str, str], verify: Any, check: Check = no_check) -> None:
        self._url, self._headers, self._verify, self._check = url, dict(headers), verify, check
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def send(self, request: Request, timeout: float, attempts: int) -> httpx.Response:
        """Return the first successful response. Raises RequestError, TooManyRequests, Unavailable."""
        import httpx

        client, budget = self._open(), Budget(attempts, time.monotonic() + timeout)
        while True:
            failed: httpx.Response | Exception
            try:
                limit = httpx.Timeout(budget.seconds_left())
                self._check(self._url)
                failed = client.request(request.method, self._url + request.path, **request.arguments, timeout=limit)
                if failed.is_success:
                    return failed
            except (httpx.TransportError, ConnectionError) as error:
                failed = error
            time.sleep(_wait(self._url, failed, budget))

    @contextmanager
    def stream(self, request: Request, timeout: float, attempts: int) -> Iterator[httpx.Response]:
        """Yield the first successful response, whose body has not been read. Raises what `send` raises, and Unavailable
        where the connection breaks while the body is read.
        """
        import httpx

        client, budget = self._open(), Budget(attempts, time.monotonic() + timeout)
        while True:
            failed: httpx.Response | Exception
            try:
                self._check(self._url)
                limit = httpx.Timeout(budget.seconds_left())
                made = client.build_request(
                    request.method, self._url + request.path, **request.arguments, timeout=limit
                )
                failed = client.send(made, stream=True)
                if failed.is_success:
                    break
                failed.read()
            except (httpx.TransportError, ConnectionError) as error:
                failed = error
            time.sleep(_wait(self._url, failed, budget))
        try:
            yield failed
        except httpx.TransportError as error:
            what = f"{self._url}: the connection broke during the response ({type(error).__name__})"
            raise Unavailable(what, fix="send the request again") from error
        finally:
            failed.close()

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _open(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(
                    headers=self._headers, verify=self._verify, trust_env=_through_proxy(self._url)
                )
            return self._client


class AsyncTransport:
    """Requests that do not block the event loop; a pool of connections for each loop that is used."""

    def __init__(self, url: str, headers: Mapping[str, str], verify: Any, check: Check = no_check) -> None:
        self._url, self._headers, self._verify, self._check = url, dict(headers), verify, check
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, request: Request, timeout: float, attempts: int) -> httpx.Response:
        """Return the first successful response. Raises RequestError, TooManyRequests, Unavailable."""
        import httpx

        client, budget = self._open(), Budget(attempts, time.monotonic() + timeout)
        while True:
            failed: httpx.Response | Exception
            try:
                limit = httpx.Timeout(budget.seconds_left())
                self._check(self._url)
                failed = await client.request(
                    request.method, self._url + request.path, **request.arguments, timeout=limit
                )
                if failed.is_success:
                    return failed
            except (httpx.TransportError, ConnectionError) as error:
                failed = error
            await asyncio.sleep(_wait(self._url, failed, budget))

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    def _open(self) -> httpx.AsyncClient:
        import httpx

        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # Connections belong to the loop that opened them, and `asyncio.run` makes a new one each time.
            self._loop = loop
            self._client = httpx.AsyncClient(
                headers=self._headers, verify=self._verify, trust_env=_through_proxy(self._url)
            )
        return self._client


def _through_proxy(url: str) -> bool:
    """A proxy for the outside world has no business with this machine's own endpoint."""
    return urlsplit(url).hostname not in LOOPBACK


def _wait(url: str, failed: httpx.Response | Exception, budget: Budget) -> float:
    """Return the seconds to wait before the next attempt. Raises the error of a call that ends here."""
    import httpx

    if isinstance(failed, httpx.Response):
        if failed.status_code not in RETRIED:
            raise _rejected(failed)
        wait = budget.next_wait(retry_after(failed.headers))
        if wait is None:
            raise _gave_up(url, failed, budget.made)
        return wait
    if reason := trust.untrusted(failed):
        fix = f"give the file of its authority, such as .raypath/tls/ca.pem: verify=FILE, --ca FILE or ${trust.CA_FILE}"
        raise Unavailable(f"the certificate of {url} is not trusted: {reason}", fix=fix) from failed
    wait = None if isinstance(failed, httpx.ReadTimeout | httpx.UnsupportedProtocol) else budget.next_wait()
    if wait is None:
        what = f"{url} did not respond ({type(failed).__name__}, {max(budget.made, 1)} attempts)"
        raise Unavailable(what, fix="check `raypath status`, or raise the client's timeout") from failed
    return wait


def _rejected(response: httpx.Response) -> RaypathError:
    status, detail = response.status_code, _detail(response)
    if status >= 500:
        return Unavailable(f"{response.url} failed with {status}: {detail}", fix="see the logs of the endpoint")
    return RequestError(
        f"{response.url} rejected the request with {status}: {detail}", fix=FIXES.get(status, ""), status=status
    )


def _gave_up(url: str, response: httpx.Response, attempts: int) -> RaypathError:
    detail = _detail(response)
    if response.status_code == 429:
        seconds = retry_after(response.headers) or 0.0
        what = f"{url} rejected {attempts} attempts with 429: {detail}"
        return TooManyRequests(what, fix=f"try again in {seconds:.0f} s", retry_after=seconds)
    what = f"{url} is not available ({response.status_code} after {attempts} attempts: {detail})"
    return Unavailable(what, fix="check `raypath status`, or try again later")


def _detail(response: httpx.Response) -> str:
    """The reason in an RFC 9457 problem, else the standard phrase of the status."""
    try:
        found = response.json()
    except ValueError:
        found = None
    detail = found.get("detail") if isinstance(found, dict) else None
    return str(detail or response.reason_phrase)[:300]
