"""One S3 server for all tests of stores, and a proxy before it."""

from collections.abc import Iterator

import pytest

from tests.deploy.store.s3 import BUCKET, KEYS, Proxy, moto


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of moto's."""
    with moto() as address:
        yield address


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Between the store and the server; by itself it spoils nothing."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    made = Proxy(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.address)
    yield made
    made.close()


@pytest.fixture
def address(proxy: Proxy, request: pytest.FixtureRequest) -> str:
    """A folder of the test's own."""
    return f"s3://{BUCKET}/{abs(hash(request.node.name)):x}"
