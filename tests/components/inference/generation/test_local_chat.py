"""A language model in this process: conversations in, answers out, and what is rejected."""

from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.inference.generation.local_chat import LocalChat
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.deploy.api.models import load
from tests.byte_llama import tiny_chat
from tests.raised import raised

CARD = ModelMetadata(task="text_generation", labels=(), max_length=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LocalChat:
    folder = tiny_chat(tmp_path_factory.mktemp("chat"))
    write_metadata(folder, CARD)
    found = load(folder, device="cpu")
    assert isinstance(found, LocalChat)
    return found


def test_a_text_is_a_message_of_the_user(model: LocalChat) -> None:
    messages = [{"role": "user", "content": "hi"}]
    first, second = model.generate(["hi", messages], max_new_tokens=5)
    assert first == second
    assert first.tokens <= 5
    assert model.chat(messages, max_new_tokens=5) == first.text
    assert first.finish in ("stop", "length")
    assert (
        first.prompt_tokens
        == len("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
        - len("<|im_start|><|im_end|><|im_start|>")
        + 3
    ), "a token a byte, and one for each mark"


def test_a_seed_draws_the_same_answer_again(model: LocalChat) -> None:
    drawn = [model.chat("hi", temperature=2.0, seed=seed, max_new_tokens=12) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_stream_is_the_response_in_pieces(model: LocalChat) -> None:
    whole = model.chat("hi", max_new_tokens=20)
    parts = list(model.stream("hi", max_new_tokens=20))
    assert "".join(parts) == whole
    assert len(parts) > 5
    stream = model.stream("hi", max_new_tokens=20)
    assert next(stream) == parts[0]
    with pytest.raises(ParamsError, match="a stream of this model is being read"):
        model.chat("hi")
    stream.close()  # type: ignore[attr-defined]
    assert not model._engine.has_work(), "a closed stream leaves nothing behind"  # type: ignore[union-attr]
    assert model.chat("hi", max_new_tokens=20) == whole
    with pytest.raises(ParamsError, match="unknown setting warmth"):
        next(model.stream("hi", warmth=1))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([], "DataError: conversation 0 has no messages"),
        ([3], "DataError: conversation 0 has a message that is not an object"),
        ([{"content": "hi"}], "DataError: conversation 0 has a message with no role"),
        ([{"role": "poet", "content": "hi"}], "DataError: conversation 0 has a message with the unknown role poet"),
        ([{"role": "user", "content": 3}], "DataError: conversation 0 has a message whose content is a int"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "DataError: conversation 0 has a message with a part"),
        ("\ud800", "DataError: conversation 0 has a lone surrogate"),
        (7, "DataError: conversation 0 has a int in place of messages"),
    ],
)
def test_what_is_no_conversation_is_named(model: LocalChat, given: Any, text: str) -> None:
    assert raised(lambda: model.chat(given)).startswith(text)


def test_parts_of_a_message_are_joined(model: LocalChat) -> None:
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    [found] = model.generate([[{"role": "user", "content": parts}]], max_new_tokens=5)
    assert found == model.generate(["hi"], max_new_tokens=5)[0]


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
def test_requests_of_mlflow_with_and_without_a_limit(model: LocalChat) -> None:
    import pandas as pd

    from raypath.components.inference.generation.pyfunc_chat import ChatModel

    chat = ChatModel()
    chat.model = model
    messages = [{"role": "user", "content": "hi", "tool_calls": None}]
    table = pd.DataFrame({"messages": [messages, messages], "max_tokens": [3, None]})
    first, _ = chat.predict(None, table, {"top_k": 2.0})
    assert first["usage"]["completion_tokens"] <= 3
    assert first["choices"][0]["message"]["content"] == model.chat("hi", max_new_tokens=3)


def test_tools_are_checked(model: LocalChat) -> None:
    said = raised(lambda: model.chat("hi", tools=["look"]))  # type: ignore[list-item]
    assert said.startswith("DataError: the request has a tool without the name of a function")


def test_settings_are_checked(model: LocalChat) -> None:
    with pytest.raises(ParamsError, match="unknown setting warmth") as caught:
        model.chat("hi", warmth=1)
    assert "temperature" in str(caught.value.fix)
    with pytest.raises(ParamsError, match="temperature is -1"):
        model.chat("hi", temperature=-1)


def test_a_folder_without_metadata_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no raypath\.json"):
        LocalChat(tmp_path)
