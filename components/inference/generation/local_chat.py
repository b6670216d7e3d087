"""A language model, in this process: chat template and engine, without a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raypath.components.core.conversations import Conversation, Message, Tool
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.inference.generation.streaming_engine import StreamingEngine
from raypath.components.models.chat_template.source_target import SourceTarget
from raypath.components.models.chat_template.text_stream import Decode, IncrementalDecoder

if TYPE_CHECKING:
    from raypath.components.inference.generation.engine import Progress, SamplingSettings

_STREAM = "stream"
"""Id of the request of a stream."""
Prompt = str | Sequence[Mapping[str, Any]]
"""Messages in OpenAI's form (`role`, `content`, and where it has them `tool_calls` and `tool_call_id`), for which the
model generates the next one; a text is one message of the user."""


@dataclass(frozen=True)
class ChatAnswer:
    """Response to a conversation."""

    text: str
    finish: str
    """stop, or length where `max_new_tokens` or the model's context was reached."""
    tokens: int
    """Tokens of the response."""
    prompt_tokens: int


class LocalChat:
    """A loaded language model; `raypath.load` makes one. Thread-safe; calls run one at a time.

    folder: of the model, or of a LoRA adapter, whose base is loaded with it. name, version: as the registry has them.
    device: cpu, cuda or auto. threads: 0 leaves torch's. Raises DataError for a folder that is not a language model,
    or an adapter whose base is not here, ParamsError for a wrong device or number of threads.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "",
        version: int = 0,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int = 0,
    ) -> None:
        from raypath.components.inference.local_model import check_folder
        from raypath.components.inference.text_to_text.opening import open_engine
        from raypath.components.models.chat_template.source_target import load_template
        from raypath.components.models.process import configure_process
        from raypath.components.privacy.keys import key_folder
        from raypath.components.privacy.redactor import redactor_of

        metadata = check_folder(folder, device, threads)
        configure_process(threads)
        self.folder, self.name, self.version = folder, name or folder.name, version
        self.max_length = metadata.max_length
        """Tokens of a conversation in training; the model may take more."""
        self._template = load_template(folder)
        self._redactor = redactor_of(metadata.redaction, key_folder(None))
        self._engine = open_engine(folder, "" if device == "auto" else device, threads)
        self._lock = threading.Lock()
        self._streaming = 0
        """Thread that reads a stream."""

    @property
    def precision(self) -> str:
        """Precision of the matmuls: fp32, bf16, or int8 for matrices in 8 bits."""
        return self._engine.precision

    def chat(self, messages: Prompt, *, tools: Sequence[Mapping[str, Any]] | None = None, **settings: Any) -> str:
        """Return the response to one conversation.

        settings: see `generate`.

        Example:
            raypath.load("models:/chat@champion").chat("HIT A GULL ON FINAL. NO DAMAGE.")
        """
        return self.generate([messages], tools=tools, **settings)[0].text

    def generate(
        self,
        conversations: Sequence[Prompt],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> list[ChatAnswer]:
        """Return a response to each conversation, in order.

        tools: functions that the model may call, in OpenAI's form. settings: fields of `SamplingSettings`, such as
        `max_new_tokens` (256) and `temperature` (0, greedy decoding). Raises DataError for invalid messages or
        tools, and a conversation that is too long for the model, ParamsError for an unknown or invalid setting.
        """
        chosen = _sampling(settings, frozenset(self._template.end_ids))
        prompts = self._prompts(conversations, tools)
        self._check_stream()
        with self._lock:
            found = self._engine.generate(prompts, chosen, progress)
        return [
            ChatAnswer(each.text, str(each.finish), len(each.ids), len(prompt))
            for each, prompt in zip(found, prompts, strict=True)
        ]

    def stream(
        self, messages: Prompt, *, tools: Sequence[Mapping[str, Any]] | None = None, **settings: Any
    ) -> Iterator[str]:
        """Yield the response to one conversation as it is generated; closing the iterator ends it.

        Other calls wait until then. The response of an encoder-decoder comes at once. tools, settings, errors: see
        `generate`; ParamsError for a call from the thread that reads a stream.
        """
        template = self._template
        if not isinstance(self._engine, StreamingEngine) or isinstance(template, SourceTarget):
            yield self.chat(messages, tools=tools, **settings)
            return
        chosen = _sampling(settings, frozenset(self._template.end_ids))
        [prompt] = self._prompts([messages], tools)
        self._check_stream()
        with self._lock:
            self._streaming = threading.get_ident()
            try:
                yield from _streamed(self._engine, prompt, chosen, template.decode)
            finally:
                self._streaming = 0

    def _prompts(self, conversations: Sequence[Prompt], tools: Sequence[Mapping[str, Any]] | None) -> list[list[int]]:
        """Return the token ids of conversations, redacted as those of the training data."""
        offered = _tools(tools)
        messages = [_messages(n, each) for n, each in enumerate(conversations)]
        if self._redactor is not None:
            messages = [list(self._redactor.messages(each)) for each in messages]
        return [self._template.encode_prompt(each, offered) for each in messages]

    def _check_stream(self) -> None:
        if self._streaming == threading.get_ident():
            raise ParamsError("a stream of this model is being read", fix="read it to its end first, or close it")

    def __repr__(self) -> str:
        return f"LocalChat({self.name!r}, version={self.version}, precision={self.precision!r})"


def _streamed(
    engine: StreamingEngine, prompt: Sequence[int], settings: SamplingSettings, decode: Decode
) -> Iterator[str]:
    """Yield the texts of a response; no other request is in the engine."""
    decoder = IncrementalDecoder(decode)
    engine.add(_STREAM, prompt, settings)
    try:
        while engine.has_work():
            for piece in engine.step():
                if piece.error is not None:
                    raise piece.error
                if text := decoder.push(piece.ids, piece.finish is not None):
                    yield text
    finally:
        engine.abort(_STREAM)
        while engine.has_work():
            engine.step()


def _messages(number: int, given: Any) -> list[Message]:
    """Convert messages as those of the training data. Raises DataError."""
    from raypath.components.data.columns.conversations.messages import to_json
    from raypath.components.data.columns.conversations.notations import messages_of

    fix = "give a text, or a list of messages with role and content"
    try:
        found = messages_of([{"role": "user", "content": given}] if isinstance(given, str) else given)
        to_json(Conversation(tuple(found)))
    except ValueError as error:
        raise DataError(f"conversation {number} {error}", fix=fix) from None
    if not found:
        raise DataError(f"conversation {number} has no messages", fix=fix)
    return found


def _tools(given: Any) -> tuple[Tool, ...]:
    from raypath.components.data.columns.conversations.notations import tools_of

    try:
        return tools_of(given)
    except ValueError as error:
        raise DataError(f"the request {error}", fix="give tools as OpenAI's API takes them") from None


def _sampling(settings: Mapping[str, Any], stop: frozenset[int]) -> SamplingSettings:
    from raypath.components.inference.generation.engine import SamplingSettings

    known = [name for name in SamplingSettings.__dataclass_fields__ if name not in ("stop", "adapter")]
    if unknown := [name for name in settings if name not in known]:
        raise ParamsError(f"unknown setting {unknown[0]}", fix=f"known are {', '.join(known)}")
    try:
        return SamplingSettings(**settings, stop=stop, logprobs=False)
    except ValueError as error:
        raise ParamsError(str(error), fix="see the documentation of SamplingSettings") from None
