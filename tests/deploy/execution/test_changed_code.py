"""A user's package of components: a step whose code changed runs again, the others are reused."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypath.components.core.artifacts import Dataset
from raypath.deploy.execution import code_digest
from raypath.deploy.execution.runner import Runner
from raypath.deploy.store.store import Store
from tests.deploy.execution.test_runner import Here, Nobody

STEP = """
from raypath.components import Context, Dataset, Params, component
from shop import words

class {name}Params(Params):
    \"\"\"Settings.\"\"\"
    times: int = 2
    \"\"\"Times.\"\"\"
"""
FILES = {
    "__init__.py": "",
    "words.py": "WORD = 'tea'\n",
    "prices.py": "PRICE = 3\n",
    "load.py": STEP.format(name="Load")
    + """
@component(version=1)
def load(ctx: Context, params: LoadParams) -> Dataset:
    (ctx.out / "text").write_text(words.WORD * params.times)
    return Dataset(rows=params.times)
""",
    "price.py": STEP.format(name="Price").replace("import words", "import prices")
    + """
@component(version=1)
def price(ctx: Context, data: Dataset, params: PriceParams) -> Dataset:
    (ctx.out / "text").write_text((ctx.input(data) / "text").read_text() + str(prices.PRICE))
    return Dataset(rows=data.rows)
""",
    "flow.py": """
from raypath.components import Dataset, Params, workflow
from shop.load import LoadParams, load
from shop.price import PriceParams, price

class FlowParams(Params):
    \"\"\"Settings.\"\"\"
    load: LoadParams = LoadParams()
    price: PriceParams = PriceParams()

@workflow
def flow(p: FlowParams) -> Dataset:
    return price(load(p.load), p.price)
""",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package, importable."""
    (tmp_path / "shop").mkdir()
    for name, text in FILES.items():
        (tmp_path / "shop" / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path / "shop"
    _forget()


def _forget() -> None:
    """As in a new process."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    code_digest._file.cache_clear()
    code_digest._read.cache_clear()


def _run(home: Path) -> tuple[str, dict[str, str]]:
    """The result's text, and what came of each step and why."""
    _forget()
    graph = importlib.import_module("shop.flow").flow.trace()
    runner = Runner(graph, Store(home).open(), Here(), Nobody())
    result = runner.execute()
    assert isinstance(result, Dataset)
    return Path(result.uri, "text").read_text(), {s.name: f"{s.status}: {s.reason}" for s in runner.run.steps}


REUSED, CODE, INPUT = "reused: nothing changed", "done: its code changed", "done: input data changed"


@pytest.mark.parametrize(
    ("file", "old", "new", "load", "price", "text"),
    [
        ("price.py", "str(prices", '"!" + str(prices', REUSED, CODE, "teatea!3"),
        ("prices.py", "3", "5", REUSED, CODE, "teatea5"),
        ("words.py", "tea", "mug", CODE, INPUT, "mugmug3"),
        ("load.py", "return", "ctx.out.joinpath('more').touch()\n    return", CODE, INPUT, "teatea3"),
        ("load.py", "return", "x = 1\n    return", CODE, REUSED, "teatea3"),
        ("price.py", "return", "# dear\n    return", REUSED, REUSED, "teatea3"),
        ("flow.py", "return", "x = 1\n    return", REUSED, REUSED, "teatea3"),
    ],
)
def test_a_changed_step_runs_again_and_the_others_are_reused(
    shop: Path, tmp_path: Path, file: str, old: str, new: str, load: str, price: str, text: str
) -> None:
    home = tmp_path / "home"
    first, reasons = _run(home)
    assert first == "teatea3"
    assert set(reasons.values()) == {"done: it has not run before"}
    code = (shop / file).read_text()
    assert old in code
    (shop / file).write_text(code.replace(old, new))
    assert _run(home) == (text, {"load": load, "price": price})
    assert set(_run(home)[1].values()) == {REUSED}
