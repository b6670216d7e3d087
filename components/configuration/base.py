"""Choice of a base model by the texts: the default for English, the multilingual one for other languages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import inputs_of
from raypath.components.core.context import Context
from raypath.components.core.params import AUTO
from raypath.components.data.wording import percent
from raypath.components.models.base_models import DEFAULT_BASE, base_folder
from raypath.components.models.conversion.packaged import EXTRA, MULTILINGUAL, is_installed

if TYPE_CHECKING:
    from raypath.components.inspection.texts.foreign import ForeignTexts

MOST_FOREIGN, NAMED = 0.2, 0.05
"""Share of texts that are not English from which the multilingual base is taken, and from which they are named."""


def choose_base(ctx: Context, base: str, train: Dataset) -> tuple[str, str]:
    """Return (base model for the texts of `train`, reason); a base that is set is kept, without a reason.

    Where the multilingual base fits and its package is missing, the default is kept and a warning says what to do: both
    the package and the setting, since the result of `configure` is reused when only the package was added.
    """
    from raypath.components.configuration.facts import sample_rows
    from raypath.components.data.rendering import Renderer
    from raypath.components.inspection.texts.foreign import TEXTS, find_foreign

    if base != AUTO:
        return base, ""
    rows = sample_rows(train, ctx.seed, TEXTS)
    parts = [Renderer([column]).table(rows) for column in inputs_of(train.columns)]
    found = find_foreign([" ".join(row) for row in zip(*parts, strict=True)], base_folder(DEFAULT_BASE))
    if found.share < MOST_FOREIGN:
        return DEFAULT_BASE, f"{_described(found)}, too few for a multilingual base" if found.share >= NAMED else ""
    if not is_installed(MULTILINGUAL):
        ctx.log.warning(
            "%s: pip install 'raypath[%s]' and set -s finetune.base=%s", _described(found), EXTRA, MULTILINGUAL
        )
        return DEFAULT_BASE, ""
    return MULTILINGUAL, f"base={MULTILINGUAL}, since {_described(found)}"


def _described(found: ForeignTexts) -> str:
    """Describe texts that are not English, and what the tokenizer of the default base makes of them."""
    languages = f" ({', '.join(found.languages)})" if found.languages else ""
    unknown = f"does not know {found.unknown:.0%} of their words"
    divided = f"divides their words into {found.tokens:.1f} tokens each"
    made = unknown if found.unknown > 0.05 else divided
    return f"{percent(found.foreign, found.texts)} of the texts are not English{languages}; a base for English {made}"
