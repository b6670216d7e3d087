"""JSON schemas on transformers: rows with and without one share a batch, and an impossible one fails alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.engine import Finish, SamplingSettings
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from tests.components.inference.generation.test_streaming import GREEDY, PROMPTS, run
from tests.tiny_chat import chat_model, chat_tokenizer

pytest.importorskip("llguidance", reason="the extra generate brings it")
SCHEMA = {
    "type": "object",
    "properties": {"bird": {"enum": ["gull", "owl"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["bird", "count"],
    "additionalProperties": False,
}
FOLLOWS = SamplingSettings(max_new_tokens=120, temperature=1.0, grammar=json.dumps(SCHEMA))


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    made = TransformersEngine(chat_model(), chat_tokenizer())
    yield made
    made.close()


def _valid(ids: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(chat_tokenizer().decode(ids))
    jsonschema.validate(found, SCHEMA)
    return found


def test_rows_with_and_without_a_schema_share_a_batch(engine: TransformersEngine) -> None:
    plain = engine.generate(PROMPTS, GREEDY)
    for row, prompt in enumerate(PROMPTS):
        engine.add(f"plain-{row}", prompt, GREEDY)
        engine.add(f"json-{row}", prompt, FOLLOWS)
    found = run(engine)
    assert [found[f"plain-{row}"].ids for row in range(len(PROMPTS))] == [each.ids for each in plain]
    values = [_valid(found[f"json-{row}"].ids) for row in range(len(PROMPTS))]
    assert {each.finish for name, each in found.items() if name.startswith("json")} == {Finish.STOP}
    assert len({json.dumps(each) for each in values}) > 1, "they are drawn"


def test_a_schema_in_a_static_batch_and_penalties(engine: TransformersEngine) -> None:
    settings = SamplingSettings(max_new_tokens=120, frequency_penalty=1.0, grammar=json.dumps(SCHEMA))
    for answer in engine.generate(PROMPTS, settings):
        _valid(answer.ids)
        assert len(answer.ids) == len(answer.logprobs)
        assert answer.finish is Finish.STOP


def test_a_response_that_may_end_ends_with_a_stop_token_of_the_request(engine: TransformersEngine) -> None:
    """A string of digits may end after each; only the request's own token, the letter x, ends it here."""
    grammar = json.dumps({"type": "integer", "minimum": 0})
    settings = SamplingSettings(max_new_tokens=40, temperature=1.0, grammar=grammar, stop=frozenset({259 - 1}))
    for seed in range(4):
        engine.add(str(seed), PROMPTS[seed], SamplingSettings(**{**vars(settings), "seed": seed}))
    for piece in run(engine).values():
        assert chat_tokenizer().decode(piece.ids).isdigit()


def test_a_response_that_is_cut_off_is_the_beginning_of_one(engine: TransformersEngine) -> None:
    engine.add("0", PROMPTS[0], SamplingSettings(max_new_tokens=3, grammar=json.dumps(SCHEMA)))
    piece = run(engine)["0"]
    assert (len(piece.ids), piece.finish, chat_tokenizer().decode(piece.ids)[0]) == (3, Finish.LENGTH, "{")


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ('{"type": "nonsense"}', "the JSON schema is none"),
        ("[1", "the JSON schema is none"),
        ("[" * 99_999, "the JSON schema is none"),
        ("true", "the JSON schema has no grammar"),
        ('{"$ref": "#/nowhere"}', "the JSON schema has no grammar"),
    ],
    ids=["type", "json", "deep", "true", "reference"],
)
def test_an_impossible_schema_fails_alone(engine: TransformersEngine, grammar: str, said: str) -> None:
    wanted = engine.generate([PROMPTS[1]], GREEDY)[0].ids
    engine.add("a", PROMPTS[1], GREEDY)
    first = engine.step()
    with pytest.raises(DataError, match=said):
        engine.add("b", PROMPTS[0], SamplingSettings(grammar=grammar))
    assert first[0].ids + run(engine)["a"].ids == wanted


def test_a_grammar_that_fails_on_its_way_ends_its_request_alone(engine: TransformersEngine) -> None:
    engine.add("a", PROMPTS[1], GREEDY)
    engine.add("b", PROMPTS[0], FOLLOWS)
    engine.step()
    [batch] = engine._rows._batches
    for row in batch.rows:
        if row.grammar is not None:
            row.grammar._matcher.consume_token(5)  # not what the grammar allows, as after an inner limit
    found = run(engine)
    assert "the JSON schema has no grammar" in str(found["b"].error)
    assert found["a"].finish is not None


def test_without_the_library_a_schema_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    engine = TransformersEngine(chat_model(), chat_tokenizer())
    with pytest.raises(
        DataError, match=r"follows no JSON schema without llguidance; pip install 'raypath\[generate\]'"
    ):
        engine.add("0", PROMPTS[0], FOLLOWS)
