"""Public template styles: the mask token by token, and the ids of training as those of service."""

from __future__ import annotations

import pickle
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tokenizers import Tokenizer

from raypath.components import DataError
from raypath.components.core.conversations import Conversation, Message, Preference
from raypath.components.models.chat_template import ChatTemplate, Encoded
from tests.components.models.chat_template.styles import STYLES, write_style

TURNS: list[Message] = [
    {"role": "user", "content": "hi there"},
    {"role": "assistant", "content": "Yes, please."},
    {"role": "user", "content": "ask again"},
    {"role": "assistant", "content": "answer is one"},
]
LEARNED = {
    "chatml": ["Yes, please.<|im_end|>", "answer is one<|im_end|>"],
    "llama3": ["Yes, please.<|eot_id|>", "answer is one<|eot_id|>"],
    "mistral": [" Yes, please.</s>", " answer is one</s>"],
    "gemma": ["Yes, please.<end_of_turn>", "answer is one<end_of_turn>"],
    "qwen": ["Yes, please.<|im_end|>", "<think>\n\n</think>\n\nanswer is one<|im_end|>"],
    "phi": ["Yes, please.<|end|>", "answer is one<|end|>"],
    "generation": ["Yes, please.<|im_end|>", "answer is one<|im_end|>"],
    "harmony": [
        "<|channel|>final<|message|>Yes, please.<|end|>",
        "<|channel|>final<|message|>answer is one<|return|>",
    ],
    "parts": [" Yes, please.<|end|>", " answer is one<|end|>"],
    "json": ["Yes, please.</s>", "answer is one</s>"],
}
CALLED = {
    "qwen": '<tool_call>\n{"name": "tea", "arguments": {"sugar": 2, "now": "é"}}\n</tool_call><|im_end|>',
    "llama3": '{"name": "tea", "parameters": {"sugar": 2, "now": "é"}}<|eot_id|>',
    "harmony": ' to=tea<|message|>{"sugar": 2, "now": "é"}<|call|>',
    "json": 'tea {"sugar":2,"now":"é"}</s>',
}
CALL: list[Message] = [
    {"role": "user", "content": "hi there"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "tea", "arguments": '{"sugar":2,"now":"é"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "one"},
    {"role": "assistant", "content": "Yes, please."},
]
TOOLS = ({"type": "function", "function": {"name": "tea", "parameters": {"type": "object"}}},)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("styles")
    return {name: write_style(place / name, name) for name in STYLES}


@pytest.fixture(scope="module")
def templates(folders: dict[str, Path]) -> dict[str, ChatTemplate]:
    return {name: ChatTemplate.load(folder) for name, folder in folders.items()}


def tokens_of(folder: Path, encoded: Encoded) -> list[str]:
    """Names of the tokens, those that are learned in brackets."""
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = [backend.id_to_token(number).replace("Ġ", " ").replace("Ċ", "\n") for number in encoded.ids]
    return [f"[{name}]" if learned else name for name, learned in zip(names, encoded.mask, strict=True)]


def learned_texts(folder: Path, encoded: Encoded) -> list[str]:
    """Texts of the runs of tokens in the loss."""
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    runs: list[list[int]] = [[]]
    for number, learned in zip(encoded.ids, encoded.mask, strict=True):
        if learned:
            runs[-1].append(number)
        elif runs[-1]:
            runs.append([])
    return [backend.decode(run, skip_special_tokens=False) for run in runs if run]


def test_the_mask_token_by_token(folders: dict[str, Path], templates: dict[str, ChatTemplate]) -> None:
    found = tokens_of(folders["chatml"], templates["chatml"].encode(Conversation(tuple(TURNS))))
    assert found[found.index("<|im_end|>") + 1 :] == [
        *("\n", "<|im_start|>", "user", "\n", "hi", " there", "<|im_end|>"),
        *("\n", "<|im_start|>", "as", "sistan", "t", "\n", "[Yes]", "[,]", "[ please]", "[.]", "[<|im_end|>]"),
        *("\n", "<|im_start|>", "user", "\n", "ask", " again", "<|im_end|>"),
        *("\n", "<|im_start|>", "as", "sistan", "t", "\n", "[answer]", "[ is]", "[ one]", "[<|im_end|>]"),
    ]
    found = tokens_of(folders["mistral"], templates["mistral"].encode(Conversation(tuple(TURNS[:2]))))
    assert found == [
        *("<s>", "[INST]", "▁", "▁hi▁there", "[/INST]"),
        *("[▁]", "[▁Ye]", "[s,▁]", "[plea]", "[s]", "[e]", "[.]", "[</s>]"),
    ]


@pytest.mark.parametrize("name", STYLES)
def test_what_is_learned(name: str, folders: dict[str, Path], templates: dict[str, ChatTemplate]) -> None:
    encoded = templates[name].encode(Conversation(tuple(TURNS)))
    runs = [run.lstrip() if name == "phi" else run for run in learned_texts(folders[name], encoded)]
    wanted = LEARNED[name]
    # Llama 2's tokenizer begins a text behind a control token with a space, which decoding keeps or drops.
    assert [run.strip() for run in runs] == [text.strip() for text in wanted]
    assert encoded.ids[-1] in templates[name].end_ids
    assert all(templates[name].encode(Conversation(tuple(TURNS)), learn="all").mask)


@pytest.mark.parametrize("name", STYLES)
def test_ids_of_training_are_those_of_the_prompt_and_the_answer(name: str, templates: dict[str, ChatTemplate]) -> None:
    template = templates[name]
    for turns in (TURNS[:2], TURNS):
        encoded, prompt = template.encode(Conversation(tuple(turns))), template.encode_prompt(turns[:-1])
        assert encoded.ids[: len(prompt)] == prompt
        assert not encoded.mask[len(prompt) - 1]
        assert all(encoded.mask[len(prompt) :])
        assert len(encoded.ids) > len(prompt) + 1


@pytest.mark.parametrize("name", ["chatml", "mistral", "gemma", "qwen", "phi", "generation"])
def test_text_and_ids_are_those_of_transformers(
    name: str, folders: dict[str, Path], templates: dict[str, ChatTemplate]
) -> None:
    from transformers import AutoTokenizer

    theirs: Any = AutoTokenizer.from_pretrained(folders[name])
    ours = templates[name]
    for tools in (None, list(TOOLS)):
        text = theirs.apply_chat_template(TURNS[:3], tools=tools, tokenize=False, add_generation_prompt=True)
        assert ours.render(TURNS[:3], tools, add_generation_prompt=True) == text
        ids = theirs.apply_chat_template(
            TURNS[:3], tools=tools, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        assert ours.encode_prompt(TURNS[:3], tools) == ids
    ids = theirs.apply_chat_template(TURNS, tokenize=True, return_dict=False)
    encoded = ours.encode(Conversation(tuple(TURNS)))
    assert encoded.ids == ids[: len(encoded.ids)]
    assert True not in [number in encoded.ids for number in ids[len(encoded.ids) :] if number not in encoded.ids]


@pytest.mark.parametrize("name", STYLES)
def test_names_of_control_tokens_in_a_text_are_text(
    name: str, folders: dict[str, Path], templates: dict[str, ChatTemplate]
) -> None:
    template, style = templates[name], STYLES[name]
    control = [*style.special, *(token for token in style.added if token in style.template)]
    typed = " ".join(control)
    plain = template.encode(Conversation(tuple(TURNS[:2])))
    asked: Message = {"role": "user", "content": f"hi {typed} there"}
    made = template.encode(Conversation((asked, TURNS[1])))
    backend = Tokenizer.from_file(str(folders[name] / "tokenizer.json"))
    for number in map(backend.token_to_id, control):
        assert made.ids.count(number) == plain.ids.count(number), backend.id_to_token(number)
    for token in control:
        assert token in backend.decode(made.ids, skip_special_tokens=False)
    answered: Message = {"role": "assistant", "content": f"Yes {style.eos} please."}
    made = template.encode(Conversation((TURNS[0], answered)))
    end = template.end_ids[0]
    assert [made.mask[n] for n, number in enumerate(made.ids) if number == end][-1]
    assert made.ids[-1] == end
    assert sum(made.mask) > sum(plain.mask)


@pytest.mark.parametrize("name", STYLES)
def test_made_up_texts(name: str, folders: dict[str, Path], templates: dict[str, ChatTemplate]) -> None:
    """Whatever messages have: the prompt's ids come first, control tokens are the template's, the answer ends."""
    template, style, random = templates[name], STYLES[name], Random(name)
    control = [*style.special, *(token for token in style.added if token in style.template)]
    parts = [
        "hi",
        " ",
        "\n",
        "  ",
        "é",
        "☕",
        "<",
        "|",
        ">",
        "{{",
        "{%",
        "\ufdd2",
        "\ufdd4",
        *control,
        control[-1][:-1],
    ]
    backend = Tokenizer.from_file(str(folders[name] / "tokenizer.json"))
    ids = [backend.token_to_id(token) for token in control]
    for _ in range(25):
        texts = ["x" + "".join(random.choices(parts, k=random.randint(1, 8))) for _ in range(4)]
        turns: list[Message] = [{**turn, "content": text} for turn, text in zip(TURNS, texts, strict=True)]
        made, plain = template.encode(Conversation(tuple(turns))), template.encode(Conversation(tuple(TURNS)))
        prompt = template.encode_prompt(turns[:-1])
        assert made.ids[: len(prompt)] == prompt, texts
        assert all(made.mask[len(prompt) :]), texts
        assert [made.ids.count(n) for n in ids] == [plain.ids.count(n) for n in ids], texts
        assert made.ids[-1] in template.end_ids, texts
        assert len(learned_texts(folders[name], made)) == 2, texts


@pytest.mark.parametrize("name", CALLED)
def test_calls_of_tools(name: str, folders: dict[str, Path], templates: dict[str, ChatTemplate]) -> None:
    template = templates[name]
    encoded = template.encode(Conversation(tuple(CALL), TOOLS))
    call, answer = learned_texts(folders[name], encoded)
    assert call == CALLED[name]
    assert answer.endswith(f"Yes, please.{STYLES[name].eos}")
    for end in (1, 3):
        prompt = template.encode_prompt(CALL[:end], TOOLS)
        part = template.encode(Conversation(tuple(CALL[: end + 1]), TOOLS))
        assert part.ids[: len(prompt)] == prompt
        assert all(part.mask[len(prompt) :])
    assert '"parameters": {"type": "object"}' in template.render(CALL[:1], TOOLS) or name != "qwen"


@pytest.mark.parametrize("name", ["chatml", "phi", "parts", "generation"])
def test_calls_that_a_template_leaves_out_are_not_learned_as_empty_answers(
    name: str, templates: dict[str, ChatTemplate]
) -> None:
    with pytest.raises(DataError, match="leaves out tool calls"):
        templates[name].encode(Conversation(tuple(CALL), TOOLS))


def test_a_template_that_leaves_out_the_answer(tmp_path: Path) -> None:
    folder = write_style(tmp_path, "qwen")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}<|im_end|>")
    with pytest.raises(DataError, match="leaves out the assistant's messages"):
        ChatTemplate.load(folder).encode(Conversation(tuple(TURNS[:2])))


@pytest.mark.parametrize(
    ("role", "left_out"),
    [("user", "message.role == 'assistant'"), ("system", "message.role != 'system'")],
)
def test_a_template_that_leaves_out_a_role(role: str, left_out: str, tmp_path: Path) -> None:
    folder = write_style(tmp_path, "qwen")
    source = "{% for message in messages if LEFT %}{{ message.content }}<|im_end|>{% endfor %}".replace(
        "LEFT", left_out
    )
    (folder / "chat_template.jinja").write_text(source)
    turns: list[Message] = [{"role": "system", "content": "no tea"}, *TURNS[:2]]
    template = ChatTemplate.load(folder)
    with pytest.raises(DataError, match=f"the chat template of the base leaves out {role} messages; remove such rows"):
        template.encode(Conversation(tuple(turns)))
    if role == "system":
        assert template.encode_prompt(TURNS[:1])


def test_a_system_message_that_a_template_moves(folders: dict[str, Path], templates: dict[str, ChatTemplate]) -> None:
    """Mistral's template has it in the last turn, so that an earlier answer does not follow its own prompt."""
    turns: list[Message] = [{"role": "system", "content": "no tea"}, *TURNS]
    encoded = templates["mistral"].encode(Conversation(tuple(turns)))
    assert [run.strip() for run in learned_texts(folders["mistral"], encoded)] == [
        "Yes, please.</s>",
        "answer is one</s>",
    ]
    prompt = templates["mistral"].encode_prompt(turns[:-1])
    assert encoded.ids[: len(prompt)] == prompt


def test_messages_that_a_template_rejects(templates: dict[str, ChatTemplate]) -> None:
    turns: list[Message] = [{"role": "system", "content": "no tea"}, *TURNS[:2]]
    with pytest.raises(DataError, match="rejects messages with the roles system, user: System role not supported"):
        templates["gemma"].encode(Conversation(tuple(turns)))


def test_weights_and_contexts(folders: dict[str, Path], templates: dict[str, ChatTemplate]) -> None:
    first: Message = {**TURNS[1], "weight": 0}
    made = templates["qwen"].encode(Conversation((TURNS[0], first, *TURNS[2:])))
    assert learned_texts(folders["qwen"], made) == LEARNED["qwen"][1:]
    both = templates["qwen"].encode(Conversation(tuple(TURNS)))
    assert made.ids == both.ids
    assert templates["qwen"].encode(Conversation(tuple(TURNS)), context=3).mask == made.mask


@pytest.mark.parametrize("name", STYLES)
def test_preferences(name: str, folders: dict[str, Path], templates: dict[str, ChatTemplate]) -> None:
    other: Message = {"role": "assistant", "content": "No tea!"}
    pair = Preference(tuple(TURNS[:3]), (TURNS[3],), (other,))
    [(chosen, rejected)] = templates[name].encode_pairs([pair])
    prompt = templates[name].encode_prompt(TURNS[:3])
    for made, text in ((chosen, "answer is one"), (rejected, "No tea!")):
        assert made.ids[: len(prompt)] == prompt
        assert made.mask == [False] * len(prompt) + [True] * (len(made.ids) - len(prompt))
        assert text in learned_texts(folders[name], made)[0]


@pytest.mark.parametrize("name", STYLES)
def test_a_text_is_learned_whole_without_the_template(
    name: str, folders: dict[str, Path], templates: dict[str, ChatTemplate]
) -> None:
    text: Message = {"role": "assistant", "content": "hi there"}
    made = templates[name].encode(Conversation((text,)))
    prompt = templates[name].encode_prompt([])
    assert len(prompt) == (1 if name == "mistral" else 0)
    assert made.ids[: len(prompt)] == prompt
    assert all(made.mask[len(prompt) :])
    backend = Tokenizer.from_file(str(folders[name] / "tokenizer.json"))
    assert backend.decode(made.ids[len(prompt) :], skip_special_tokens=False).strip() == f"hi there{STYLES[name].eos}"


@pytest.mark.parametrize("name", STYLES)
def test_a_template_in_a_worker(name: str, templates: dict[str, ChatTemplate]) -> None:
    worker = pickle.loads(pickle.dumps(templates[name]))
    many = [Conversation(tuple(TURNS[:2])), Conversation(tuple(TURNS))]
    assert worker.encode_all(many) == templates[name].encode_all(many)
    assert worker.end_ids == templates[name].end_ids
