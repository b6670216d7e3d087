"""What holds for every test, and what many train with."""

import gc
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raypath.components import Context, Dataset
from raypath.components.core.context import Tracking
from raypath.components.tracking import login
from tests.mlflow_login import set_variables, write_token

# Exact figures are compared, which a processor with bfloat16 would round: what bf16 does is asked for by name.
os.environ["RAYPATH_PRECISION"] = "fp32"
# OpenMP threads that wait sleep instead of spinning. Tests side by side have more threads than cores, and a thread that
# spins takes the core of the one it waits for: a training step with two threads took ten times the processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Ray lowers the priority of its workers, for the sake of a person at the same machine. Beside tests that compute in
# their own process they would get a twentieth of a core: the services of one process of `pytest -n` wait for the other.
os.environ.setdefault("RAY_worker_niceness", "0")
set_variables()


GROUPS = {
    "ray_head": "cluster",
    "mlflow_uri": "mlflow",
    "mlflow_home": "mlflow_home",
    "two_heads": "two_heads",
    "programs": "programs",
}
"""Fixtures of a session that start services, and the group of the tests that use one; the first counts."""
LAST = {"own_serve", "last_of_programs"}
"""Fixtures that end services of their group: the tests that use one come after the others, which need them."""
LONGEST = (
    "cluster", "workflows/test_text_classification.py", "test_docs.py", "programs", "several", "two_heads", "mlflow",
)  # fmt: skip
"""Groups of more than a minute, of which none should begin when the others end: names, or ends of a file's path."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups for `pytest -n 2 --dist loadgroup`, each of which runs in one process, the longest first.

    Tests that share services are one group, so that these start once. Other files are a group each, which keeps the
    fixtures of a module in one process, unless the file names its group with the mark `xdist_group`.
    """
    groups: dict[pytest.Item, str] = {}
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        shared = [group for name, group in GROUPS.items() if name in getattr(item, "fixturenames", ())]
        groups[item] = shared[0] if shared else str(mark.args[0] if mark else item.path)
        if shared or mark is None:
            item.add_marker(pytest.mark.xdist_group(groups[item]), append=False)
    slow = {groups[item] for item in items if item.get_closest_marker("slow")}
    rank = {group: _rank(group, group in slow) for group in set(groups.values())}
    items.sort(key=lambda item: (rank[groups[item]], not LAST.isdisjoint(getattr(item, "fixturenames", ()))))


def _rank(group: str, slow: bool) -> int:
    """Place of a group among the others: the longest, the other slow ones, the rest."""
    place = next((n for n, name in enumerate(LONGEST) if group.endswith(name)), len(LONGEST))
    return place if slow or place < len(LONGEST) else len(LONGEST) + 1


_NO_BYTECODE = sys.dont_write_bytecode


def pytest_collectstart() -> None:
    """Import test modules and what they import faster, in each process that does.

    That makes millions of objects that stay; to look through them for garbage takes a third of the time. Bytecode is
    written, also where the environment says otherwise: pytest changes each assertion of each module, and each process
    of the tests compiles what it imports, unless that was done before.
    """
    gc.disable()
    sys.dont_write_bytecode = False


def pytest_collection_finish() -> None:
    """Collect garbage from here on, but not among what was imported; cache no modules that tests write."""
    sys.dont_write_bytecode = _NO_BYTECODE
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """A command changes the umask, the search path, SIGTERM and the logins of its process, here that of all tests."""
    mask, handler, search = os.umask(0o022), signal.getsignal(signal.SIGTERM), list(sys.path)
    tokens = dict(login._tokens)
    yield
    # Another server may take the port of one that has ended.
    login._tokens.clear()
    login._tokens.update(tokens)
    os.umask(mask)
    sys.path[:] = search
    if handler is not None:
        signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Registered models are cached in the user's folder, here in one of the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYPATH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_signing_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Registered models are signed; a test without a home signs with this key, and trusts it."""
    from raypath.components.registry.signing import keys

    folder = tmp_path_factory.mktemp("signing")
    keys.ensure_key(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(keys.PRIVATE, str(next(folder.glob("*.key"))))
        yield


@pytest.fixture(scope="session")
def forks() -> Iterator[None]:
    """A server that forks the workers of Ray, which begin with torch and the models imported.

    Those of a home too whose head is started in `forked_heads`. The homes of test_text_classification.py in
    tests/workflows and of `programs` have workers as a user has them.
    """
    from tests.fork_server.start import WORKERS, fork_server

    with fork_server(WORKERS):
        yield


@pytest.fixture(scope="session")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose MLflow server each test starts, and stops as it likes; its database is made once."""
    from raypath.deploy.local import services

    home = tmp_path_factory.mktemp("mlflow-home")
    write_token(home)
    yield home
    services.down(home)


@pytest.fixture(scope="session")
def two_heads(tmp_path_factory: pytest.TempPathFactory, forks: None) -> Iterator[dict[str, Path]]:
    """Homes with a Ray head each: that of `one` has a public listener and RAYPATH_PRECISION, that of `two` neither."""
    from raypath.deploy.local import haproxy, services
    from tests.deploy.local.front import certificate
    from tests.fork_server.start import forked_heads
    from tests.waiting import free_port

    homes = {name: tmp_path_factory.mktemp(name) for name in ("one", "two")}
    listener = haproxy.PublicListener(f"0.0.0.0:{free_port()}", certificate(homes["one"]))
    try:
        with pytest.MonkeyPatch.context() as patch, forked_heads():
            patch.setattr(haproxy, "HEAD_SECONDS", 2)
            patch.setenv("RAYPATH_PRECISION", "fp32")
            services.up(homes["one"], mlflow=False, dashboard=False, listener=listener)
            patch.delenv("RAYPATH_PRECISION")
            services.up(homes["two"], mlflow=False, dashboard=False)
        yield homes
    finally:
        for home in homes.values():
            services.down(home)


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., Context]:
    """`make_context("read")`: a context with fresh folders; further fields by keyword."""
    numbers = itertools.count()

    def make(step: str, **fields: Any) -> Context:
        place = tmp_path / f"step-{next(numbers)}"
        for name in ("out", "scratch"):
            (place / name).mkdir(parents=True)
        fields.setdefault("tracking", Tracking(spool=str(tmp_path / "spool")))
        return Context(step=step, out=place / "out", scratch=place / "scratch", workers=2, **fields)

    return make


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model."""
    from tests.tiny import tiny_bert

    return tiny_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Dataset, Dataset]:
    """Preprocessed rows to train on, and some to validate on."""
    from tests.tiny import write_part

    return (
        write_part(tmp_path_factory.mktemp("train"), base, 200, 0),
        write_part(tmp_path_factory.mktemp("valid"), base, 60, 1),
    )
