"""MLflow pyfunc model of a language model version ("models from code"); this file is stored with every such version.

It has MLflow's signature of a chat model, which is OpenAI's request and response, and needs Raypath: conversations are
rendered by the code that training rendered them with, and a LoRA adapter finds its base by digest. `raypath export`
makes a folder that transformers opens without Raypath.
"""

import time
import uuid
from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd  # type: ignore[import-untyped]
from mlflow.pyfunc import PythonModel

NAMES = {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}
"""Settings of a request by OpenAI's names, and Raypath's names for them."""


class ChatModel(PythonModel):  # type: ignore[misc]
    """Model that answers a conversation."""

    def load_context(self, context: Any) -> None:
        """Load the model; called once by `mlflow.pyfunc.load_model`."""
        from raypath.components.inference.generation.local_chat import LocalChat

        self.model = LocalChat(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """Answer a request, as a dict of OpenAI's chat completion; a table of several requests gives a list.

        Each has `messages` and may have `tools`, `max_tokens`, `temperature`, `top_p` and `top_k`. Raises ValueError
        for `n` and `stream`, DataError or ParamsError for a request that the model cannot answer.
        """
        rows = [model_input] if isinstance(model_input, dict) else model_input.to_dict(orient="records")
        found = [self._answer({name: _plain(value) for name, value in row.items()}, params or {}) for row in rows]
        return found[0] if len(found) == 1 else found

    def _answer(self, request: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        if request.get("n") not in (None, 1) or request.get("stream"):
            raise ValueError("n and stream are not supported; send several requests")
        known = {**request, **params}
        settings = {own: _whole(known[name]) for name, own in NAMES.items() if known.get(name) is not None}
        [answer] = self.model.generate([request.get("messages") or []], tools=request.get("tools"), **settings)
        used = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens}
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model.name,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": answer.text},
                    "finish_reason": answer.finish,
                }
            ],
            "usage": {**used, "total_tokens": sum(used.values())},
        }


def _plain(value: Any) -> Any:
    """Convert arrays, which MLflow makes of lists, back, and NaN, which pandas makes of what is not there, to None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return None if value != value else value


def _whole(value: Any) -> Any:
    """Convert the floats that pandas makes of integers, in a column where other requests have none, back."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


mlflow.models.set_model(ChatModel())
