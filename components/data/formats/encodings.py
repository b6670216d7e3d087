"""Invalid text: its position, and the encodings that the file may be in."""

from __future__ import annotations

import codecs
import unicodedata
from itertools import pairwise

from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.sources.streams import open_encoded

CANDIDATES = (
    *("utf-8", "cp1252", "cp1250", "cp1251", "gb18030", "cp932", "euc_jp", "big5", "cp949", "cp1253", "cp1254"),
    *("cp1255", "cp1256", "koi8-r", "mac_roman", "cp850", "cp437"),
)
"""Encodings that are tried, the more common first."""
_CHUNK = 1 << 20
_SAMPLE = 1 << 16


def invalid_byte(file: DataFile) -> tuple[int, int]:
    """Offset from 0 (after decompression) and line from 1 of the first invalid byte; the end if there is none."""
    raw, encoding, offset = open_encoded(file)
    decoder, line = codecs.getincrementaldecoder(encoding)(), 1
    with raw:
        while True:
            chunk = raw.read(_CHUNK)
            pending = len(decoder.getstate()[0])
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                valid = error.object[: error.start].decode(encoding, "replace")
                return offset + error.start - pending, line + valid.count("\n")
            if not chunk:
                return offset, line
            offset += len(chunk)


def readings(file: DataFile, offset: int) -> dict[str, str]:
    """Map the encodings in which the text at `offset` can be read to the character that they make of it.

    The most plausible are first: those in which words have one script, and no capitals behind small letters.
    """
    raw, _, skipped = open_encoded(file)
    at = min(offset - skipped, _SAMPLE // 2)
    with raw:
        before = offset - skipped - at
        while before > 0:
            before -= len(raw.read(min(before, _CHUNK))) or before
        sample = raw.read(_SAMPLE)
    # From the beginning of a line: a character may have several bytes.
    start = sample.rfind(b"\n", 0, at) + 1
    sample, at = sample[start:], at - start
    found: dict[str, tuple[int, str]] = {}
    for encoding in CANDIDATES:
        text = _decoded(sample, encoding)
        if text is not None:
            letter = next((letter for letter in _from(sample, at, encoding) if not letter.isascii()), "")
            # Other text is hardly ever valid UTF-8 by chance.
            odd = -2 if encoding == "utf-8" else _oddities(text) - _has_own_letters(text)
            found[encoding] = odd, letter
    order = sorted(found, key=lambda encoding: (found[encoding][0], CANDIDATES.index(encoding)))
    return {encoding: found[encoding][1] for encoding in order if found[encoding][1]}


def _decoded(sample: bytes, encoding: str) -> str | None:
    """Decode a sample whose last character may be cut off; None if it is not in this encoding."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return None
    odd = (letter for letter in set(text) - {*"\t\r\n"} if unicodedata.category(letter) in ("Cc", "Co", "Cn"))
    return None if any(odd) else text


def _from(sample: bytes, at: int, encoding: str) -> str:
    """Return the text from the character on that has the byte `at`."""
    before = codecs.getincrementaldecoder(encoding)("replace").decode(sample[:at])
    return (_decoded(sample, encoding) or "")[len(before) :]


def _oddities(text: str) -> int:
    """Count pairs of letters that are rare in words: of two scripts, two accents, a capital behind a small letter."""
    count = 0
    for first, second in pairwise(text):
        if first.isascii() and second.isascii():
            continue
        if first.isalpha() and second.isalpha():
            scripts = {_script(first), _script(second)}
            accents = scripts == {"LATIN"} and not first.isascii() and not second.isascii()
            count += len(scripts) > 1 or accents or (first.islower() and second.isupper())
        else:
            # Signs within words, as in "caf├®".
            odd = first if not first.isascii() else second
            count += unicodedata.category(odd) in ("So", "Sm", "Sk", "No", "Sc") and (first + second).strip() != odd
    return count


def _has_own_letters(text: str) -> bool:
    """Return True if a fifth of the letters are Hiragana or Hangul: the bytes of such texts suit Chinese as well."""
    letters = [letter for letter in text if letter.isalpha() and not letter.isascii()]
    own = sum("\u3041" <= letter <= "\u309f" or "\uac00" <= letter <= "\ud7a3" for letter in letters)
    return own * 5 > len(letters)


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "?").split()[0]
    return "CJK" if name in ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "FULLWIDTH") else name
