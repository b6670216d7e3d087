"""The audit log: each way to falsify it is found, a crash is not one, and no action is done without a record."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raypath.components.core.errors import DataError, PlatformError, UserError
from raypath.components.core.files import locked
from raypath.deploy.store.audit import anchors, log
from raypath.deploy.store.audit.records import Head, canonical, digest_of, folder_of
from raypath.deploy.store.audit.verify import Verification, verify


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with five records."""
    home = tmp_path / "home"
    home.mkdir()
    for number in range(1, 6):
        log.record(home, "model.promote", f"reviews/{number}")
    return home


def lines(home: Path) -> list[bytes]:
    return (folder_of(home) / "log.jsonl").read_bytes().splitlines(keepends=True)


def rewrite(home: Path, new: list[bytes]) -> None:
    (folder_of(home) / "log.jsonl").write_bytes(b"".join(new))


def problems(home: Path, place: str = "") -> list[str]:
    return [f"{each.where}: {each.what}" for each in verify(home, place).problems]


def forged(home: Path, change: Callable[[list[dict]], None]) -> None:  # type: ignore[type-arg]
    """Change records and compute all hashes and the head anew, as somebody who may write to the home could."""
    fields = [json.loads(line) for line in lines(home)]
    change(fields)
    previous, size = "0" * 64, 0
    for n, each in enumerate(fields, start=1):
        each.update(n=n, previous=previous)
        each["hash"] = previous = digest_of(each)
    new = [canonical(each) + b"\n" for each in fields]
    rewrite(home, new)
    size = sum(map(len, new))
    head = Head(log=fields[0]["hash"][:16], n=len(fields), hash=previous, size=size, day="2026-01-01")
    (folder_of(home) / "head.json").write_text(head.model_dump_json())


def test_records_say_who_did_what_when(home: Path) -> None:
    found = list(log.read(home))
    assert [(each.n, each.action, each.target, each.outcome) for each in found[:2]] == [
        (1, "model.promote", "reviews/1", "ok"),
        (2, "model.promote", "reviews/2", "ok"),
    ]
    actor = found[0].actor
    assert (actor.uid, actor.host, bool(actor.program)) == (os.getuid(), os.uname().nodename, True)
    assert datetime.now(UTC) - found[0].time < timedelta(minutes=1)
    assert verify(home) == Verification(records=5, anchors=0, anchored=0, problems=[])
    assert {path.stat().st_mode & 0o777 for path in folder_of(home).iterdir()} == {0o600}


def test_a_changed_record_is_found(home: Path) -> None:
    for number in range(5):
        kept = lines(home)
        new = list(kept)
        new[number] = new[number].replace(b"reviews/", b"reviewz/")
        rewrite(home, new)
        assert problems(home) == [f"line {number + 1}: record {number + 1} was changed"]
        rewrite(home, kept)


def test_a_removed_record_is_found(home: Path) -> None:
    kept = lines(home)
    for gone in range(4):
        rewrite(home, kept[:gone] + kept[gone + 1 :])
        assert problems(home) == [f"line {gone + 1}: record {gone + 1} is missing"]
    rewrite(home, kept[:-1])
    assert problems(home) == ["line 4: the log ends with record 4, but record 5 was the last one written"]
    rewrite(home, kept[:1] + kept[4:])
    assert problems(home) == ["line 2: records 2 to 4 are missing"]
    (folder_of(home) / "log.jsonl").unlink()
    assert problems(home) == ["line 0: the log ends with record 0, but record 5 was the last one written"]


def test_moved_and_added_lines_are_found(home: Path) -> None:
    kept = lines(home)
    rewrite(home, [kept[0], kept[2], kept[1], *kept[3:]])
    assert len(problems(home)) == 3
    rewrite(home, [*kept[:3], kept[2], *kept[3:]])
    assert problems(home) == ["line 4: record 3 follows record 3"]
    rewrite(home, [*kept[:3], b'{"n": 4}\n', *kept[3:]])
    assert problems(home) == ["line 4: this line is no record"]
    rewrite(home, [line.replace(b'"n":', b'"n" :') for line in kept[:1]] + kept[1:])
    assert problems(home) == ["line 1: record 1 was changed"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"n": 1e999, "previous": "", "hash": ""}',
        b'{"n": 6, "previous": "", "hash": "", "target": "\\ud800"}',
        b'{"n": 6, "previous": "", "hash": "", "detail": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xff\x00",
    ],
    ids=["number", "surrogate", "depth", "bytes"],
)
def test_a_line_that_would_break_the_verification_is_a_problem(home: Path, line: bytes) -> None:
    rewrite(home, [*lines(home), line + b"\n"])
    assert problems(home) == ["line 6: this line is no record"]


def test_a_record_waits_for_a_verification(home: Path) -> None:
    """Otherwise the head might be that of a record which was not read."""
    with log.reading(home), locked(folder_of(home) / ".lock", fcntl.LOCK_EX | fcntl.LOCK_NB) as free:
        assert not free


def test_names_that_are_no_text_are_recorded(home: Path) -> None:
    """Such as paths of another encoding."""
    odd = os.fsdecode(b"caf\xe9")
    log.record(home, "model.export", odd, detail={"folder": odd, "files": [odd]})
    [made] = list(log.read(home))[5:]
    assert (made.target, made.detail) == ("caf\\udce9", {"folder": "caf\\udce9", "files": ["caf\\udce9"]})
    assert problems(home) == []


def test_the_next_record_does_not_hide_that_some_are_missing(home: Path) -> None:
    rewrite(home, lines(home)[:3])
    log.record(home, "key.create", "anna")
    assert problems(home) == ["line 4: records 4 to 5 are missing"]


def test_a_log_that_is_written_anew_disagrees_with_the_anchors(home: Path, tmp_path: Path) -> None:
    kept, head = lines(home), (folder_of(home) / "head.json").read_text()
    log.anchor_now(home)
    assert verify(home).anchored == 5
    forged(home, lambda records: records[3].update(target="reviews/9"))
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    assert problems(home) == [f"anchors.jsonl: record 5 had another hash on {day} than the log has now"]
    forged(home, lambda records: records.pop(0))
    assert problems(home) == [f"anchors.jsonl: this anchor of {day} is of another log; was the log replaced?"]
    rewrite(home, kept)
    (folder_of(home) / "head.json").write_text(head)
    assert problems(home) == []


def test_anchors_elsewhere_outlive_the_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "vault"
    monkeypatch.setenv(anchors.ELSEWHERE, str(place))
    log.anchor_now(home)
    [copy] = (place / "anchors").iterdir()
    assert verify(home).anchors == 2
    (folder_of(home) / "anchors.jsonl").unlink()
    forged(home, lambda records: records[0].update(outcome="failed"))
    assert len(problems(home, str(place))) == 1
    copy.write_text(copy.read_text().replace('"payload":"', '"payload":"e'))
    assert problems(home)[0].endswith("this anchor has a signature that does not match")
    with pytest.raises(DataError, match="no folder"):
        verify(home, str(tmp_path / "absent"))
    monkeypatch.setenv(anchors.ELSEWHERE, "gopher://x")
    with pytest.raises(UserError, match="s3://BUCKET/PREFIX"):
        verify(home)


def test_an_anchor_of_another_key_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypath.components.registry.signing import keys

    monkeypatch.delenv(keys.PRIVATE, raising=False)
    monkeypatch.delenv(keys.PUBLIC, raising=False)
    log.anchor_now(home)
    assert problems(home) == []
    for file in (home / "signing").iterdir():
        file.unlink()
    keys.ensure_key(home / "signing")
    assert "which is not trusted here" in problems(home)[0]


def test_the_first_record_of_a_day_anchors_the_day_before(home: Path) -> None:
    head = log.read_head(home)
    (folder_of(home) / "head.json").write_text(head.model_copy(update={"day": "2026-01-01"}).model_dump_json())
    log.record(home, "key.create", "anna")
    log.record(home, "key.create", "ben")
    assert verify(home) == Verification(records=7, anchors=1, anchored=5, problems=[])


@pytest.mark.parametrize("where", ["after the record", "within the record", "before the head"])
def test_a_crash_is_no_manipulation(home: Path, where: str) -> None:
    head, before = (folder_of(home) / "head.json").read_text(), lines(home)
    log.record(home, "key.create", "anna")
    if where == "within the record":
        rewrite(home, [*before, lines(home)[-1][:40]])
    if where != "after the record":
        (folder_of(home) / "head.json").write_text(head)
    assert problems(home) == [], "before the next record as well"
    log.record(home, "key.create", "ben")
    found = verify(home)
    assert (found.problems, found.records) == ([], 6 if where == "within the record" else 7)


def test_a_killed_writer_leaves_a_log_that_verifies(home: Path) -> None:
    code = (
        "import sys, pathlib; from raypath.deploy.store.audit import log\n"
        "home = pathlib.Path(sys.argv[1])\n"
        "while True: print(log.record(home, 'key.create', 'x' * 200).n, flush=True)\n"
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        last = int(rest[-1]) if rest else seen[-1]
        log.record(home, "key.create", "after")
        found = verify(home)
        assert found.problems == []
        assert found.records > last  # what was acknowledged is there


def test_writers_in_several_processes_make_one_chain(home: Path) -> None:
    code = (
        "import sys, pathlib; from raypath.deploy.store.audit import log\n"
        "for n in range(30): log.record(pathlib.Path(sys.argv[1]), 'run.start', str(n))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(home)]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert verify(home) == Verification(records=95, anchors=0, anchored=0, problems=[])


def test_an_action_is_recorded_with_its_outcome(home: Path) -> None:
    with log.audited(home, "key.create", "anna", {"scopes": ["chat"]}) as detail:
        detail["id"] = "1f"
    with pytest.raises(UserError), log.audited(home, "key.revoke", "ben"):
        raise UserError("no key ben, secret-text")
    with pytest.raises(KeyboardInterrupt), log.audited(home, "model.export", "chat/1"):
        raise KeyboardInterrupt
    found = list(log.read(home))[5:]
    assert [each.outcome for each in found] == ["ok", "failed: UserError", "stopped"]
    assert found[0].detail == {"scopes": ["chat"], "id": "1f"}
    assert b"secret-text" not in b"".join(lines(home))


def test_nothing_is_done_without_a_record(home: Path) -> None:
    done = []
    unwritable = pytest.raises(PlatformError, match="nothing is done without a record")
    folder_of(home).rename(home / "kept")
    folder_of(home).write_text("a file in place of the folder")
    with unwritable, log.audited(home, "key.create", "anna"):
        done.append(1)
    assert not done


def test_a_home_that_does_not_exist_is_not_created(tmp_path: Path) -> None:
    with log.audited(tmp_path / "none", "model.export", "chat/1"):
        pass
    assert not (tmp_path / "none").exists()
    assert verify(tmp_path / "none").records == 0
