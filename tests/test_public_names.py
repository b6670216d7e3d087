"""Every public name is the object of the module that defines it, from the first use on, and importing is light."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = """
import importlib, sys
import raypath
heavy = sorted({"ray", "torch", "transformers", "mlflow", "pyarrow"} & set(sys.modules))
assert not heavy, heavy
assert sorted(raypath._MODULE_OF) == sorted(raypath.__all__)
assert set(raypath.__all__) <= set(dir(raypath))
for name, module in raypath._MODULE_OF.items():
    first = getattr(raypath, name)
    assert first is getattr(importlib.import_module(module), name), name
    assert getattr(raypath, name) is first, name
try:
    raypath.nothing
except AttributeError as error:
    assert str(error) == "module 'raypath' has no attribute 'nothing'", error
else:
    raise AssertionError("an unknown name was found")
"""


def test_every_public_name_is_there_at_the_first_use() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
