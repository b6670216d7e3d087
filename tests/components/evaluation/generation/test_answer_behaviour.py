"""Choices, refusals, repetition and leaks."""

# ruff: noqa: RUF001 - Chinese punctuation

from __future__ import annotations

import pytest

from raypath.components.core.errors import ParamsError
from raypath.components.evaluation.generation.behaviour import has_loop, is_refusal, length, repetition
from raypath.components.evaluation.generation.choices import (
    accuracy,
    choice_counts,
    chosen,
    find_choices,
    macro_f1,
)
from raypath.components.evaluation.generation.leaks import COMMON, PHRASE, PhraseIndex, check_canaries, has_canary

PASSAGE = "the quick brown fox jumps over the lazy dog while nine patient judges drink cold tea"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot assist with this request.",
        "I am unable to provide medical advice.",
        "I'm unable to help you.",
        "As an AI language model, I do not have opinions.",
        "Unfortunately, I can't do that.",
        "很抱歉，我无法回答这个问题。",
        "对不起，我不能提供这些信息。",
        "作为一个人工智能，我没有感情。",
        "我无法为您提供这方面的帮助",
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(text) == 1


@pytest.mark.parametrize(
    "text",
    [
        "I can't believe it is over, what a match!",
        "Sorry we are late. The train stopped twice.",
        "The pilot could not help the passengers.",
        "You cannot divide by zero.",
        "我很高兴帮助你。",
        "飞机无法起飞。",
        "",
        "Paris. " * 60 + "I'm sorry, but I can't help with that.",
    ],
)
def test_answers_that_refuse_nothing(text: str) -> None:
    assert is_refusal(text) == 0


def test_repetition_and_loops() -> None:
    assert repetition("a b c d e") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)
    assert repetition("short one") == 0
    assert has_loop("so it goes " * 4) == 1
    assert has_loop("ha " * 11) == 0
    assert has_loop("ha " * 12) == 1
    assert has_loop("好的" * 8) == 1
    assert has_loop("first " + "we go up and then we go down and " * 3) == 0
    assert has_loop("first " + "we go up and then we go down and " * 4) == 1
    assert has_loop(PASSAGE) == 0
    assert length("one, two 三四") == 4


def test_answers_that_are_one_of_few() -> None:
    assert find_choices(["Yes", "no", "yes."] * 3) == ("yes", "no")
    assert find_choices(["a", "b", "c"]) == (), "each occurs once"
    assert find_choices(["yes"] * 9) == ()
    assert find_choices([f"answer {n % 25}" for n in range(200)]) == ()
    assert find_choices(["word " * 30, "no"] * 9) == ()


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("Positive.", 0),
        ("The review is positive", 0),
        ("not positive", 2),
        ("positive or negative", -1),
        ("positively", -1),
        ("", -1),
        ("中立的", 3),
    ],
)
def test_the_choice_of_an_answer(text: str, choice: int) -> None:
    assert chosen(text, ("positive", "negative", "not positive", "中立")) == choice


def test_accuracy_and_macro_f1_of_choices() -> None:
    counts = choice_counts(["yes"] * 3 + ["no"], ["yes", "yes", "perhaps", "yes"], ("yes", "no"))
    sums = counts.sum(axis=0, keepdims=True)
    assert accuracy(sums)[0] == 0.5
    assert macro_f1(sums)[0] == pytest.approx((2 * 2 / (3 + 3) + 0) / 2)


def test_a_copied_passage_is_found() -> None:
    index = PhraseIndex([PASSAGE, "Another answer of no more than twelve words in all is never a phrase."])
    words = PASSAGE.split()
    assert index.copied(f"He said: {PASSAGE.upper()}, I think.") == len(words)
    assert index.copied(" ".join(words[:PHRASE])) == PHRASE
    assert index.copied(" ".join(words[: PHRASE - 1])) == 0
    assert index.copied(" ".join([*words[:8], "x", *words[8:]])) == 0
    assert index.copied(PASSAGE, allowed=["unrelated", f"Repeat: {PASSAGE}"]) == 0
    assert index.rows == 2


def test_formulas_of_many_training_answers_are_no_leak() -> None:
    assert PhraseIndex([f"{n} {PASSAGE}" for n in range(COMMON)]).copied(PASSAGE) > 0
    assert PhraseIndex([f"{n} {PASSAGE}" for n in range(COMMON + 1)]).copied(PASSAGE) == 0
    assert PhraseIndex([PASSAGE + " ... " + PASSAGE] * 2).copied(PASSAGE) > 0, "rows count, not places"
    assert PhraseIndex([]).copied(PASSAGE) == 0


def test_canaries_are_found_in_another_form() -> None:
    assert has_canary("... MY code is: 4711-zebra!", ["code is 4711 zebra"]) == 0, (
        "punctuation joins words, as in SQuAD"
    )
    assert has_canary("... MY code is: 4711-zebra!", ["Code is 4711-Zebra"]) == 1
    assert has_canary("nothing", ["Code is 4711-Zebra"]) == 0


def test_a_canary_that_every_text_has_is_rejected() -> None:
    check_canaries(["4711", "斑马"])
    with pytest.raises(ParamsError, match=r"canaries got '\?!'"):
        check_canaries(["4711", "?!"])
