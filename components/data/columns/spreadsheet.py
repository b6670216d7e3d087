"""Cells of CSV files that a spreadsheet would run as formulas.

Excel and LibreOffice evaluate a cell that begins with = + - or @, whoever wrote it: a text of a customer could send
other cells to a server. Such a cell gets a leading ', as OWASP advises; numbers stay as they are.
https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

FORMULA = r"^[=+\-@\t\r]"
NUMBER = r"^[+\-]?[0-9]+(\.[0-9]*)?([eE][+\-]?[0-9]+)?$"


def safe_cell(value: Any) -> Any:
    """Return a value for `csv.writer`; text that begins like a formula has a leading '."""
    if isinstance(value, str) and re.match(FORMULA, value) and not re.match(NUMBER, value):
        return f"'{value}"
    return value


def safe_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Do the same for a column; columns of other types than text are returned as they are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    formula = pc.and_(pc.match_substring_regex(column, FORMULA), pc.invert(pc.match_substring_regex(column, NUMBER)))
    quote, end = (pa.scalar(text, column.type) for text in ("'", ""))
    return pc.if_else(formula, pc.binary_join_element_wise(quote, column, end), column)
