"""What holds for every test."""

import os
import signal
from collections.abc import Iterator

import pytest

# Exact figures are compared, which a processor with bfloat16 would round: what bf16 does is asked for by name.
os.environ["RAYPATH_PRECISION"] = "fp32"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """A command narrows the umask and takes SIGTERM for its own process, which here is that of all tests."""
    mask, handler = os.umask(0o022), signal.getsignal(signal.SIGTERM)
    yield
    os.umask(mask)
    if handler is not None:
        signal.signal(signal.SIGTERM, handler)
