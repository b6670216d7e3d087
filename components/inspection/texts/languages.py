"""Language of a text by its script and by its most frequent function words (stop words); no model is needed.

Scripts with one main language decide alone. In Latin, Cyrillic and Arabic scripts the language with the most function
words wins if the text has at least two of them, and more than of any other language; else it is unknown.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.arrays import Array
from raypath.components.inspection.texts.words import Words

# ruff: noqa: RUF001 - words of other alphabets
_STOP_WORDS = {
    "en": "the and of to is in that it was for with this but not you are have be on my they as a i we",
    "de": "der die und das ist nicht ich ein eine zu mit den auf für es sie wir auch dem sich von aber sehr war im",
    "fr": "le la les et est un une des pas je que pour dans ce qui sur il vous avec très mais plus au nous c",
    "es": "el la los las y es de que en un una no por con para muy pero se lo como del más al mi está",
    "it": "il la che di e è un una non per con sono ma molto del della questo si le gli ho come più anche nel",
    "pt": "o a os as e é de que um uma não para com por muito mas do da em no na se eu mais foi está",
    "nl": "de het een en is van ik niet dat op te zijn met voor maar ook er aan heb wij zeer naar deze bij was",
    "sv": "och är det att en ett som på jag inte med för av har den till men mycket vi om så han var från de",
    "da": "og er det at en et som på jeg ikke med for af har den til men meget vi om så han var fra de",
    "no": "og er det at en et som på jeg ikke med for av har den til men veldig vi om så han var fra de",
    "fi": "ja on ei se että oli en hän mutta kun niin ovat joka tämä myös minä ole sen kuin vain nyt olen sitä",
    "pl": "i w nie na to się jest z że do jak ale co tak za bardzo od po są ten mnie dla był tego już przez",
    "cs": "a je se na v že to s z do jsem ale i jak by za tak od po pro byl jsou si velmi který této",
    "ro": "și în de la este cu nu un o pe să din care pentru mai sunt foarte dar că am era ca dacă acest",
    "hu": "a az és nem hogy is egy van ez de meg volt már csak mint nagyon még el azt ha lesz ki minden nekem",
    "tr": "ve bir bu çok için ile de da ne ama gibi daha var yok olarak ben değil kadar sonra her şey mi ki en",
    "id": "yang dan di ini itu tidak untuk dengan saya dari ada akan pada ke juga sangat bisa sudah adalah karena",
    "vi": "và là của không có được cho một những này các tôi với rất trong khi đã đến người nhưng cũng thì ở",
    "ru": "и в не на что я с это как но он к по очень все у так за из мне было для бы от",
    "uk": "і в не на що я з це як але та до дуже все у так за із мені було для від є й",
    "bg": "и в не на че аз с това как но той към по много всичко от така за из ми беше да се е са",
    "sr": "и је у се да на не за то са као али што од сам су који ово веома до по или би ја",
    "ar": "في من على أن لا ما هذا إلى كان هو عن مع التي الذي هذه لم قد كل جدا بعد هي ولا إن كانت",
    "fa": "و در به از که این را با است برای آن یک خود تا بر هم نیز خیلی من بود شد ها می اما",
}
_SCRIPTS = {
    "ja": r"[\p{Hiragana}\p{Katakana}]",
    "ko": r"\p{Hangul}",
    "zh": r"\p{Han}",
    "th": r"\p{Thai}",
    "el": r"\p{Greek}",
    "he": r"\p{Hebrew}",
    "script:Devanagari": r"\p{Devanagari}",
    "ta": r"\p{Tamil}",
    "bn": r"\p{Bengali}",
}
"""Language by a script, in order: Japanese has Chinese characters too."""
UNKNOWN = "unknown"
NAMES = [*_STOP_WORDS, *_SCRIPTS, UNKNOWN]
"""Languages by their code in `language_codes`."""
_LANGUAGES_OF: dict[str, list[int]] = {}
for _code, _words in enumerate(_STOP_WORDS.values()):
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_code)
_NON_ASCII = r"[^\x00-\x7f]"
_SHARE = 0.25
"""Characters of a script, as a share of all but spaces and ASCII punctuation, that decide the language."""


def language_codes(texts: pa.Array, words: Words) -> Array:
    """Language of each text as its index in NAMES, uint8 [N]."""
    codes = _by_stop_words(words)
    foreign = np.flatnonzero(pc.match_substring_regex(texts, _NON_ASCII).to_numpy(zero_copy_only=False))
    if len(foreign):
        chosen = texts.take(pa.array(foreign))
        sizes = np.maximum(pc.count_substring_regex(chosen, r"[\p{L}]").to_numpy(zero_copy_only=False), 1)
        for name, pattern in reversed(_SCRIPTS.items()):
            counts = pc.count_substring_regex(chosen, pattern).to_numpy(zero_copy_only=False)
            codes[foreign[counts > _SHARE * sizes]] = NAMES.index(name)
    return codes


def _by_stop_words(words: Words) -> Array:
    size, languages = len(words.starts) - 1, len(_STOP_WORDS)
    counts = np.zeros((size, languages), np.int32)
    number = np.full(len(words.vocabulary), -1, np.int32)
    stop = [n for n, word in enumerate(words.vocabulary) if word in _LANGUAGES_OF]
    number[stop] = np.arange(len(stop))
    member = np.zeros((len(stop), languages), bool)
    for n, code in enumerate(stop):
        member[n, _LANGUAGES_OF[words.vocabulary[code]]] = True
    found = number[words.codes]
    rows, found = words.rows[found >= 0], found[found >= 0]
    for language in range(languages):
        counts[:, language] = np.bincount(rows[member[found, language]], minlength=size)
    best = counts.argmax(axis=1)
    top = counts[np.arange(size), best]
    counts[np.arange(size), best] = 0
    certain = (top >= 2) & (top > counts.max(axis=1, initial=0))
    return np.where(certain, best, NAMES.index(UNKNOWN)).astype(np.uint8)
