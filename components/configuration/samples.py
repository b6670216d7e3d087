"""Short training of the samples, so that the first run of a workflow takes five minutes on two cores.

It applies to `sample://` data only: settings for your own data follow from its rows. A setting that you give wins, and
with `finetune.minutes` the samples are treated like any data.
"""

from __future__ import annotations

from raypath.components.core.artifacts import Values

SHORT: dict[str, Values] = {
    "sample://reviews": {"epochs": 1, "lr": 1e-4, "batch_tokens": 2048, "frozen_layers": 2},
    "sample://movies": {"epochs": 3, "lr": 2e-4, "batch_tokens": 512, "frozen_layers": 3},
    "sample://tweets": {"epochs": 1, "lr": 1e-4, "batch_tokens": 2048, "frozen_layers": 4},
}
"""Values of FinetuneParams by the URI of the data."""
SHORT_DECODERS: dict[str, Values] = {
    "sample://strikes": {"epochs": 1, "lr": 1e-3, "batch_tokens": 512},
}
"""The same, for language models that generate."""
SHORT_LENGTHS = {"sample://reviews": 128, "sample://movies": 64, "sample://tweets": 64}
"""Maximum lengths of rows in tokens by the URI of the data."""
