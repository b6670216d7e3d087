"""JSON on standard output, valid in every locale."""

from __future__ import annotations

import json
import sys
from typing import Any


def write_json(value: Any) -> None:
    """Write JSON to standard output, with escapes for what is not ASCII where its encoding is not UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    is_utf8 = encoding.lower().replace("-", "") == "utf8"
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not is_utf8) + "\n")
