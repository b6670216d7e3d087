"""Behaviour of a model whatever the reference: length, refusals, repetition."""

from __future__ import annotations

import re

from raypath.components.evaluation.generation.texts import words

REPEATED_GRAM = 4
"""Words of the n-grams whose repetition is counted, as in Welleck et al., 2019."""
LOOP_TIMES, LOOP_WORDS, LOOP_LONGEST = 4, 12, 20
"""A phrase of up to LOOP_LONGEST words, this often in a row and at least this many words together, is a loop."""
_START = 240
"""Characters at the beginning of an answer where a refusal is looked for."""
_UNABLE = r"(?:can(?:no|')t|can not|am (?:unable|not able) to|'m (?:unable|not able) to|won't|will not|must decline to)"
_ACTS = (
    r"(?:help|assist|answer|provide|fulfil\w*|comply|do that|do this|support|share|give|create|write|generate|discuss|"
    r"engage|complete|offer|respond|process|access|advise|continue|participate)"
)
_REFUSALS = (
    rf"\bi {_UNABLE}(?: \w+)?? {_ACTS}\b",
    rf"\bi{_UNABLE}(?: \w+)?? {_ACTS}\b",
    rf"\b(?:sorry|apologi[sz]e|unfortunately),?(?: but)? i ?{_UNABLE}\b",
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b",
    r"\bi(?: do not|don't) (?:feel comfortable|have the ability)\b",
    r"(?:抱歉|对不起)[\uff0c,\u3002\uff01! ]*(?:但)?(?:是)?(?:我|作为|这个|您)",
    r"我(?:无法|不能|没法|不便)(?:为你|为您|给你|给您|对此|直接)?(?:提供|回答|帮助|协助|满足|完成|讨论|生成|继续|参与|处理)",
    r"作为(?:一个|一名|一款)?(?:人工智能|ai|语言模型|大模型|智能助手)",
)
_REFUSAL = re.compile("|".join(_REFUSALS))


def length(text: str) -> float:
    """Return the number of words; Chinese and Japanese by character."""
    return float(len(words(text)))


def is_refusal(text: str) -> float:
    """Return 1 if an answer begins like a refusal, in English or Chinese, else 0."""
    start = text[:_START].lower().replace("\u2019", "'")
    return float(_REFUSAL.search(start) is not None)


def repetition(text: str) -> float:
    """Return the share of 4-grams of words that occurred before in the same answer; 0 for short ones.

    seq-rep-4 of Welleck et al., Neural Text Generation with Unlikelihood Training, 2019.
    """
    found = words(text)
    grams = [tuple(found[n : n + REPEATED_GRAM]) for n in range(len(found) - REPEATED_GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def has_loop(text: str) -> float:
    """Return 1 if a phrase follows itself again and again, else 0. See LOOP_TIMES."""
    found = words(text)
    for size in range(1, min(LOOP_LONGEST, len(found) // LOOP_TIMES) + 1):
        wanted = max(LOOP_TIMES * size, LOOP_WORDS)
        # A run of words that equal the word `size` before them, of which the first period is not a part.
        run = 0
        for n in range(size, len(found)):
            run = run + 1 if found[n] == found[n - size] else 0
            if run + size >= wanted:
                return 1.0
    return 0.0
