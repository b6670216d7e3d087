"""HTTP routes of a service of language models.

POST /v1/chat/completions, /v1/completions    OpenAI-compatible generation (openai/chat/routes.py)
POST /v1/responses                            the same in OpenAI's newer form (openai/responses/routes.py)
GET  /v1/models                               the served models
GET  /card, /models/NAME/card                 the model card
GET  /                                        a page to chat with the model
GET  /healthz                                 name, version, status
GET  /usage                                   usage of the key's tenant
GET  /docs, /openapi.json                     the interface, as a page and as an OpenAPI document
"""

from __future__ import annotations

from fastapi import FastAPI

from raypath.components.serving.api.common_routes import add_card, add_pages, new_api
from raypath.components.serving.api.openai import models
from raypath.components.serving.api.openai.chat import routes as chat
from raypath.components.serving.api.openai.responses import routes as responses
from raypath.components.serving.api.openai.responses.requests import ResponsesRequest
from raypath.components.serving.api.openapi import document
from raypath.components.serving.api.usage_routes import add_usage
from raypath.components.serving.protocol import LanguageModelService


def build_language_api(service: LanguageModelService) -> FastAPI:
    """Build the routes of a service."""
    spec = service.spec
    api = new_api(service, "A language model: the next message of a conversation, or the continuation of a text.")
    add_card(api, service)
    add_pages(api, spec.name, chat=True)
    add_usage(api, spec)
    api.include_router(models.routes(service))
    api.include_router(chat.routes(service))
    api.include_router(responses.routes(service))
    document(api, *chat.REQUESTS, ResponsesRequest, keys=bool(spec.access))
    return api
