"""Chat templates: conversations as token ids, by the same code in training, evaluation and service."""

from raypath.components.models.chat_template.pieces import Encoded
from raypath.components.models.chat_template.template import ChatTemplate

__all__ = ["ChatTemplate", "Encoded"]
