"""Heads of the versions in service that compute on ciphertexts, with their descriptions."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raypath.components.homomorphic.encrypted_head import EncryptedHead
from raypath.components.homomorphic.interface import EncryptedInterface
from raypath.components.homomorphic.model_head import encoder_digest, read_head
from raypath.components.homomorphic.parameters import PROTOCOL
from raypath.components.models.base_models import tokenizer_digest

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import LoadedModel
    from raypath.components.serving.params import ServeParams

_KEPT = 8
"""Heads in memory."""


@dataclass(frozen=True)
class ServedHead:
    """Head of a version, and what clients are told about it."""

    head: EncryptedHead
    about: EncryptedInterface


class ServedHeads:
    """Heads by version, read on the first request."""

    def __init__(self, settings: ServeParams) -> None:
        self._settings = settings
        self._heads: OrderedDict[tuple[str, int], ServedHead] = OrderedDict()
        self._one = asyncio.Lock()

    async def of(self, model: LoadedModel) -> ServedHead:
        """Return the head of a version. Raises DataError for a model without a linear one."""
        name = (model.name, model.version)
        async with self._one:
            if name not in self._heads:
                self._heads[name] = await asyncio.to_thread(self._read, model)
            self._heads.move_to_end(name)
            while len(self._heads) > _KEPT:
                self._heads.popitem(last=False)
            return self._heads[name]

    def _read(self, model: LoadedModel) -> ServedHead:
        head = read_head(model.folder)
        about = EncryptedInterface(
            model=model.name,
            version=model.version,
            protocol=PROTOCOL,
            metadata=model.metadata,
            encoder=encoder_digest(model.folder),
            tokenizer=tokenizer_digest(model.folder),
            width=head.width,
            classes=head.classes,
            largest_feature=head.largest_feature,
            max_texts=self._settings.max_items,
            max_bytes=self._settings.max_body,
        )
        return ServedHead(head, about)
