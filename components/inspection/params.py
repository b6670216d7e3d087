"""Settings of the data report."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raypath.components.core.params import AUTO, Params, Positive, Source
from raypath.components.models.base_models import DEFAULT_BASE, resolved_base
from raypath.components.models.conversion.packaged import CHAT, is_converted, is_packaged


class InspectParams(Params):
    """Contents and limits of the data report. It changes neither the rows nor the model."""

    enabled: bool = True
    """Write the report in a run; false leaves it out."""
    texts: bool = False
    """Show parts of the texts in the report, such as the word that gives a label away. Without it the report has counts
    and row numbers only."""
    base: Source | None = None
    """Folder or hf://NAME of the base model whose tokenizer counts lengths; none counts words. In a run it is that of
    finetune."""
    max_length: Positive = 256
    """Number of tokens from which a text is truncated. In a run it is that of preprocess."""
    model: bool = False
    """Search for label errors and outliers in the features of the base, which takes about 10 ms a row on a CPU."""
    model_rows: Positive = 10_000
    """Most rows of which the features are computed; above, they are drawn at random."""
    similarity: Annotated[float, Field(ge=0.5, le=1.0)] = 0.8
    """Jaccard similarity of words and pairs of words from which two texts are near duplicates, 0.5 to 1."""
    min_test_rows: Positive = 10
    """Rows of a class in the test split below which its metrics are reported as too uncertain."""

    def of_files(self, conversations: bool, limited: bool) -> InspectParams:
        """Return these params with the base and the maximum length of a run that sets none, for files without a run.

        limited: the maximum length is set. Without a base that is here, words are counted: none is downloaded or
        converted.
        """
        from raypath.components.data.tokenization.conversation_rows import LIMIT

        changes: dict[str, object] = {} if self.base else {"base": _installed(CHAT if conversations else DEFAULT_BASE)}
        if conversations and not limited:
            changes["max_length"] = LIMIT
        return self.model_copy(update=changes)

    def using(self, base: str, max_length: int | str) -> InspectParams:
        """Return these params with the base and the maximum length of a run; what is "auto" there takes a default."""
        length = self.max_length if max_length == AUTO else max_length
        return self.model_copy(update={"base": self.base or resolved_base(base), "max_length": length})


def _installed(base: str) -> str | None:
    """Return a base whose tokenizer is here; None for one that is not, or would have to be converted first."""
    from raypath.components.core.errors import RaypathError
    from raypath.components.data.tokenization.tokenizer import tokenizer_folder

    try:
        if is_packaged(base) and not is_converted(base):
            return None
        tokenizer_folder(base)
    except RaypathError:
        return None
    return base
