"""Languages and personal data of single texts, and words of any script."""

# ruff: noqa: RUF001
from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from raypath.components.inspection.minhash import signatures
from raypath.components.inspection.texts.languages import NAMES, language_codes
from raypath.components.inspection.texts.personal_data import KINDS, find, personal_data
from raypath.components.inspection.texts.words import split_words

LANGUAGES = {
    "en": "I bought this for my wife and it was the best that we have had",
    "de": "Das ist sehr gut und ich würde es auch mit einer anderen Farbe kaufen",
    "fr": "Je suis très content de ce produit, mais la livraison est un peu lente",
    "es": "El producto es muy bueno y lo recomiendo para todos, pero el precio no",
    "it": "Il prodotto è molto buono e sono contento, ma la spedizione non è stata veloce",
    "pt": "O produto é muito bom, mas a entrega não foi rápida e eu não gostei da cor",
    "nl": "Het is een goed product en ik ben er zeer blij mee, maar de levering was niet snel",
    "pl": "To jest bardzo dobry produkt, ale dostawa nie była szybka i się zawiodłem",
    "tr": "Bu ürün çok güzel ama teslimat hızlı değil ve bir daha almam",
    "ru": "Это очень хороший товар, но доставка была не быстрой и я не доволен",
    "uk": "Це дуже гарний товар, але доставка була не швидкою, і я не задоволений",
    "ar": "هذا المنتج جيد جدا ولكن لا أنصح به من هذا المتجر",
    "zh": "这个产品非常好，我很喜欢",
    "ja": "この商品はとても良いです",
    "ko": "이 제품은 정말 좋아요",
    "th": "สินค้านี้ดีมาก",
    "el": "Το προϊόν είναι πολύ καλό",
    "he": "המוצר הזה טוב מאוד",
    "unknown": "xyzzy 12345",
}
PERSONAL = {
    "write to jane.doe+shop@mail.example.co.uk please": {"email"},
    "see https://example.com/a?b=c now": {"url"},
    "call +49 30 1234567 today": {"phone"},
    "call (415) 555-2671 today": {"phone"},
    "手机 13812345678 谢谢": {"phone"},
    "card 4111 1111 1111 1111 expires": {"card"},
    "card 4111 1111 1111 1112 expires": set(),
    "IBAN DE89 3704 0044 0532 0130 00 bitte": {"iban"},
    "IBAN DE88 3704 0044 0532 0130 00 bitte": set(),
    "身份证 11010519491231002X 完": {"resident_id"},
    "身份证 110105194912310021 完": set(),
    "from 192.168.17.20 again": {"ip"},
    "version 1.2.3.400 again": set(),
    "bought in 2019 for 12.99, 3 of 4 stars, 24 x 500 ml": set(),
    "": set(),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages(language: str) -> None:
    texts = pa.array([LANGUAGES[language]])
    assert NAMES[language_codes(texts, split_words(texts))[0]] == language


@pytest.mark.parametrize("text", PERSONAL)
def test_personal_data(text: str) -> None:
    assert find(text) == PERSONAL[text]
    bits = int(personal_data(pa.array([text]))[0])
    assert {kind for n, kind in enumerate(KINDS) if bits >> n & 1} == PERSONAL[text]


def test_words_of_any_script() -> None:
    words = split_words(pa.array(["Don't STOP, naïve!", "", "很好 ok", "हिन्दी"]))
    found = [words.vocabulary[code] for code in words.codes]
    assert found == ["don", "t", "stop", "naïve", "很", "好", "ok", "हिन्दी"]
    assert words.counts.tolist() == [4, 0, 3, 1]


def test_signatures_estimate_the_jaccard_similarity() -> None:
    rng = np.random.default_rng(0)
    vocabulary = [f"w{n}" for n in range(5_000)]
    for kept in (20, 60, 90):
        first = list(rng.choice(vocabulary, 100, replace=False))
        second = first[:kept] + [f"{word}x" for word in first[kept:]]
        shared, union = 2 * kept - 1, 2 * 199 - (2 * kept - 1)
        pair = signatures(split_words(pa.array([" ".join(first), " ".join(second)])))
        assert abs(float((pair[0] == pair[1]).mean()) - shared / union) < 0.2
