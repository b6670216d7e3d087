"""A notebook as Markdown."""

import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent.parent / "python-interface.ipynb"


def notebook() -> str:
    """Return the notebook docs/python-interface.ipynb as Markdown."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(_notebook_cell(cell) for cell in cells)


def _notebook_cell(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"])
    return text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
