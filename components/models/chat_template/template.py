"""Chat template of a base model: conversations as text and as token ids, with a loss mask.

Training, evaluation and service render with this class alone, so that the ids of a conversation in training are those
of the prompt in service, followed by those of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from raypath.components.core.conversations import Conversation, Function, Message, Preference, Tool, ToolCall, is_text
from raypath.components.core.errors import DataError
from raypath.components.models.chat_template.answers import ANSWER, AnswerFinder
from raypath.components.models.chat_template.calls import ARGUMENT, NAME, CallForm
from raypath.components.models.chat_template.files import FILE, ChatFiles, read_chat_files
from raypath.components.models.chat_template.generation_prompt import with_generation_prompt
from raypath.components.models.chat_template.messages import MessageForm
from raypath.components.models.chat_template.pieces import TAIL, Encoded, Piece, PieceEncoder, divided, joined
from raypath.components.models.chat_template.rendering import Rendered, TemplateRejects, compile_template, render
from raypath.components.models.chat_template.token_bytes import TokenBytes

Learn = Literal["assistant", "all"]
"""Tokens in the loss: those of the assistant's messages, or all."""
_TOOL: Tool = {"type": "function", "function": {"name": NAME, "description": "a", "parameters": {}}}


class ChatTemplate:
    """Chat template with its tokenizer. It can be pickled, and workers need no folder.

    batched: use the threads of the tokenizers library.
    """

    def __init__(self, files: ChatFiles, batched: bool = True) -> None:
        import tokenizers

        self._files = files
        backend = tokenizers.Tokenizer.from_str(files.tokenizer)
        added = backend.get_added_tokens_decoder().values()
        sources = files.source + files.tool_source
        control = [token.content for token in added if token.special or token.content in sources]
        self._encoder = PieceEncoder(backend, control, batched)
        compile_template(files.source)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load the template and the tokenizer of a model's folder; a folder without a template gets a default.

        Raises DataError for a tokenizer or template that cannot be read, and for a base without an end token.
        """
        return cls(with_generation_prompt(read_chat_files(Path(folder))))

    @property
    def name(self) -> str:
        """Name of the default template, `chatml` or `turns`; `tokenizer` for the base's own."""
        return self._files.name

    @property
    def added(self) -> str:
        """Generation prompt that was added to the base's own template; "" if it has one, or needs none."""
        return self._files.added

    def save(self, folder: str | Path) -> None:
        """Write a template that is not, or not as it is here, among the files of the base's tokenizer."""
        if self.name != "tokenizer" or self.added:
            (Path(folder) / FILE).write_text(self._files.source, encoding="utf-8")

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that end an answer."""
        names = [*self._encoder.control.findall(self._answers.end), self._tokens.get("eos_token", "")]
        found = [self._encoder.id_of(name) for name in dict.fromkeys(names) if name]
        return tuple(number for number in found if number is not None)

    def render(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None = None, add_generation_prompt: bool = False
    ) -> str:
        """Return the text of messages. Raises DataError if the template rejects them."""
        rendered = self._render(*self._given(messages, tools), add_generation_prompt)
        return self._encoder.unmark(rendered.text)

    def encode(self, conversation: Conversation, learn: Learn = "assistant", context: int = 0) -> Encoded:
        """Return the token ids up to the end of the last answer, and the loss mask: True for tokens in the loss.

        The loss has the assistant's texts and calls with their end tokens, but not those of the first `context`
        messages; or all tokens. Raises DataError if the template rejects the messages.
        """
        return self.encode_all([conversation], learn, [context])[0]

    def encode_all(
        self, conversations: Sequence[Conversation], learn: Learn = "assistant", contexts: Sequence[int] | None = None
    ) -> list[Encoded]:
        """Encode many conversations, equal prompts once. contexts: for each the number of first messages that are not
        in the loss."""
        contexts = contexts or [0] * len(conversations)
        prompts: dict[str, list[Piece]] = {}
        rows = [self._pieces(each, context, prompts) for each, context in zip(conversations, contexts, strict=True)]
        ids = iter(self._encoder.encode([piece for row in rows for piece in row]))
        return [joined([(piece, next(ids)) for piece in row], learn) for row in rows]

    def encode_pairs(
        self, preferences: Sequence[Preference], learn: Learn = "assistant"
    ) -> list[tuple[Encoded, Encoded]]:
        """Encode the prompt of each preference with both answers, the chosen one first; no prompt is in the loss."""
        both = [each for pair in preferences for each in (pair.with_chosen, pair.with_rejected)]
        contexts = [len(pair.messages) for pair in preferences for _ in range(2)]
        found = self.encode_all(both, learn, contexts)
        return list(zip(found[::2], found[1::2], strict=True))

    def encode_prompt(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None = None, lead: str = ""
    ) -> list[int]:
        """Return the token ids of a prompt, up to the start of the response; without messages, of a text.

        lead: first text of the response, with names of control tokens.
        """
        if messages:
            pieces = self._prompt(*self._given(messages, tools), [False] * len(messages))
        else:
            pieces = self._text("")[:1] if self._encoder.begin else []
        if lead:
            pieces.append(Piece(lead, "".join(piece.text for piece in pieces)[-TAIL:]))
        return [number for ids in self._encoder.encode(pieces) for number in ids]

    def encode_text(self, text: str) -> list[int]:
        """Return the token ids of a text to be continued; names of control tokens in it are text."""
        begin = self._encoder.begin
        pieces = [piece for piece in (Piece(begin, ""), Piece(self._encoder.mark(text), begin)) if piece.text]
        return [number for ids in self._encoder.encode(pieces) for number in ids]

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Return the text of token ids. special: with the names of special tokens."""
        return self._encoder.decode(ids, special)

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """Bytes of single tokens."""
        return TokenBytes(self._encoder.backend)

    def is_special(self, text: str) -> bool:
        """Return True for the name of a special token, which `decode` leaves out."""
        found = self._encoder.id_of(text)
        return found is not None and not self.decode([found])

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self._encoder.vocabulary

    @cached_property
    def takes_tools(self) -> bool:
        """True if descriptions of tools are in the text of a prompt."""
        try:
            return NAME in self.render([{"role": "user", "content": "a"}], [_TOOL], True)
        except DataError:
            return False

    @cached_property
    def call_form(self) -> CallForm | None:
        """Form in which the assistant calls tools; None if the template leaves out calls, or writes no JSON."""
        function: Function = {"name": NAME, "arguments": json.dumps({ARGUMENT: 1})}
        call: ToolCall = {"id": "abcdefghi", "type": "function", "function": function}
        asked: list[Message] = [{"role": "user", "content": "a"}]
        try:
            prompt = self.render(asked, [_TOOL], True)
            full = self.render([*asked, {"role": "assistant", "content": "", "tool_calls": [call]}], [_TOOL])
        except DataError:
            return None
        answer = full[len(prompt) :] if full.startswith(prompt) else ""
        return CallForm.of(answer.rstrip().removesuffix(self._answers.end.strip())) if answer else None

    def _pieces(self, conversation: Conversation, context: int, prompts: dict[str, list[Piece]]) -> list[Piece]:
        """Divide a conversation into its prompt, as in service, and the last answer. prompts: those divided already."""
        given = conversation.messages
        if is_text(given) and not conversation.tools:
            return self._text(self._encoder.mark(given[0]["content"]))
        messages, tools = self._given(given, conversation.tools)
        last = len(messages) - 1
        learned = [n >= context and message.get("weight") != 0 for n, message in enumerate(given)]
        key = json.dumps([messages[:last], tools, learned[:last]])
        if key not in prompts:
            prompts[key] = self._prompt(messages[:last], tools, learned)
        pieces = prompts[key].copy()
        prompt, full = "".join(piece.text for piece in pieces), self._render(messages, tools, False)
        (start, _), *spans = self._answers.last(full, messages, tools, prompt)
        answer = full.text[start : spans[-1][1]]
        pieces += divided(answer, [(begin - start, end - start, learned[last]) for begin, end in spans], prompt)
        end_token = self._tokens.get("eos_token", "")
        if self._answers.end or not end_token or answer.endswith(end_token):
            return pieces
        return [*pieces, Piece(end_token, answer[-TAIL:], learned[last])]

    def _text(self, content: str) -> list[Piece]:
        """Return the pieces of a text, which has no prompt: it is in the loss with its end token."""
        begin, end = self._encoder.begin, self._tokens.get("eos_token", "")
        found = [Piece(begin, ""), Piece(content, begin, True), Piece(end, content[-TAIL:], True)]
        return [piece for piece in found if piece.text]

    def _prompt(self, messages: list[Any], tools: Sequence[Tool], learned: Sequence[bool]) -> list[Piece]:
        """Divide a prompt where assistant messages start and end. learned: the messages in the loss."""
        rendered = self._render(messages, tools, True)
        spans = self._answers.in_prompt(rendered, messages, tools)
        return divided(rendered.text, [(start, end, learned[n]) for start, end, n in spans])

    def _given(self, messages: Sequence[Message], tools: Sequence[Tool] | None) -> tuple[list[Any], list[Any]]:
        """Return messages and tools as the template takes them, with marked names of control tokens.

        Raises DataError for messages and calls of tools that the template leaves out.
        """
        for role in ("user", "system"):
            if role in self._left_out and any(message["role"] == role for message in messages):
                what = f"the chat template of the base leaves out {role} messages"
                raise DataError(what, fix="remove such rows, or choose a base whose template has a place for them")
        calls = any(message.get("tool_calls") for message in messages)
        if calls and self._call_form is None:
            what = "the chat template of the base leaves out tool calls, which would train on empty responses"
            raise DataError(what, fix="remove such rows, or choose a base whose template has a place for them")
        form = (calls and self._call_form) or self._form
        return self._encoder.mark(form.messages(messages)), self._encoder.mark(list(tools or ()))

    @cached_property
    def _form(self) -> MessageForm:
        """Form of messages that the template shows: some take lists of parts alone. Raises DataError for none."""
        turns: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ANSWER}]
        shown = [(form, self._shows(form, turns)) for form in (MessageForm(), MessageForm(parts=True))]
        if all(each is False for _, each in shown):
            raise DataError("the chat template of the base leaves out the assistant's messages", fix="correct it")
        return next((form for form, each in shown if each), MessageForm())

    @cached_property
    def _left_out(self) -> frozenset[str]:
        """Roles whose messages the template leaves out of a prompt; those that it rejects are not among them."""
        system: Message = {"role": "system", "content": ANSWER}
        turns: dict[str, list[Message]] = {
            "system": [system, {"role": "user", "content": "a"}],
            "user": [{"role": "user", "content": ANSWER}],
        }
        return frozenset(role for role, made in turns.items() if self._shows(self._form, made, True) is False)

    @cached_property
    def _call_form(self) -> MessageForm | None:
        """Form of messages with calls; None if the template leaves them out."""
        call: ToolCall = {"id": "abcdefghi", "type": "function", "function": {"name": ANSWER, "arguments": "{}"}}
        asked: Message = {"role": "user", "content": "a"}
        turns: list[Message] = [asked, {"role": "assistant", "content": "", "tool_calls": [call]}]
        shown = [(form, self._shows(form, turns)) for form in (self._form, self._form._replace(json=True))]
        if all(each is False for _, each in shown):
            return None
        return next((form for form, each in shown if each), self._form)

    def _shows(self, form: MessageForm, turns: list[Message], is_prompt: bool = False) -> bool | None:
        """Return True if ANSWER is in the text of messages; None if the template rejects them."""
        source = self._files.tool_source if "tool_calls" in turns[-1] else ""
        tools = (
            [{"type": "function", "function": {"name": "a", "description": "a", "parameters": {}}}] if source else []
        )
        try:
            return ANSWER in self._render(form.messages(turns), tools, is_prompt).text
        except DataError:
            return None

    @cached_property
    def _answers(self) -> AnswerFinder:
        eos = self._tokens.get("eos_token", "")
        return AnswerFinder(self._render, self._form.content(ANSWER), self._encoder.control, eos)

    @cached_property
    def _tokens(self) -> dict[str, str]:
        return dict(self._files.tokens)

    def _render(self, messages: list[Any], tools: Sequence[Any], is_prompt: bool) -> Rendered:
        source = self._files.tool_source if tools and self._files.tool_source else self._files.source
        given = {"messages": messages, "tools": list(tools) or None, "documents": None}
        try:
            return render(source, **given, add_generation_prompt=is_prompt, **self._tokens)
        except TemplateRejects as error:
            roles = _in_order([message["role"] for message in messages])
            reason = self._encoder.unmark(str(error))
            what = f"the chat template of the base rejects messages with the roles {roles}: {reason}"
            fix = "remove messages that it has no place for, such as those of the role system, or choose another base"
            raise DataError(what, fix=fix) from None

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickle, (self._files,)


def _in_order(roles: list[str], most: int = 6) -> str:
    """Return the first roles as text."""
    return ", ".join(roles[:most]) + (", ..." if len(roles) > most else "") if roles else "none"


@lru_cache(maxsize=2)
def _unpickle(files: ChatFiles) -> ChatTemplate:
    """Rebuild a template in a worker. There is one worker per core, so it encodes on a single thread."""
    return ChatTemplate(files, batched=False)
