"""Backups: encrypted, incremental, consistent; each damage is found, and a crash leaves what was there before."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raypath.components.core.errors import DataError, StoreError, UserError
from raypath.deploy.api.security.backups import create_backup
from raypath.deploy.cli import main as cli
from raypath.deploy.store.backup import places, restore
from raypath.deploy.store.backup.create import create
from raypath.deploy.store.backup.encryption import MasterKey, RepositoryKey, create_key, read_key
from raypath.deploy.store.backup.repository import BLOCK, Repository, change_key, open_repository
from raypath.deploy.store.store import Store

KEY = MasterKey(bytes(range(32)))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a few files of each kind."""
    home = tmp_path / "home"
    Store(home).open()
    write(home / "artifacts" / "ab12" / "part-0.parquet", os.urandom(3 * BLOCK + 17))
    write(home / "artifacts" / "ab12" / ".hidden", b"of the author")
    write(home / "artifacts" / "ab12" / "poetry.lock", b"of the author")
    write(home / "artifacts" / "cd34" / "same.parquet", (home / "artifacts/ab12/part-0.parquet").read_bytes())
    write(home / "records" / "k1.json", b"{}")
    write(home / "access" / "keys.json", b'{"keys": []}')
    for name in ("ray.token", "services.json", "scratch/k2/checkpoint", "logs/ray.log", "access/keys.lock"):
        write(home / name, b"of this machine")
    (home / "artifacts" / "empty").mkdir()
    write(home / "mlflow" / "artifacts" / "1" / "model" / "empty", b"")
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE runs (n INTEGER)")
    return home


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "place"


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)


def create_file(path: Path) -> Path:
    create_key(path)
    return path


def opened(place: Path, key: MasterKey = KEY) -> Repository:
    return open_repository(str(place), key, create=True)


def contents(home: Path) -> dict[str, bytes]:
    return {str(p.relative_to(home)): p.read_bytes() for p in home.rglob("*") if p.is_file() and "db" not in p.name}


def test_a_restored_home_has_the_same_files_and_none_of_this_machine(home: Path, place: Path, tmp_path: Path) -> None:
    made = create(home, opened(place))
    copy = tmp_path / "elsewhere" / "home"
    restore.restore(opened(place), opened(place).find("latest"), copy)
    left_out = {"ray.token", "services.json", "scratch/k2/checkpoint", "logs/ray.log", "access/keys.lock"}
    before = {name: data for name, data in contents(home).items() if name not in left_out}
    assert contents(copy) == before
    assert (copy / "artifacts" / "empty").is_dir()
    assert sqlite3.connect(copy / "mlflow" / "mlflow.db").execute("SELECT count(*) FROM runs").fetchone() == (0,)
    assert {path.stat().st_mode & 0o777 for path in copy.rglob("*") if path.is_file()} == {0o600}
    assert (copy / "records/k1.json").stat().st_mtime_ns == (home / "records/k1.json").stat().st_mtime_ns
    # The second large artifact has the blocks of the first one.
    assert made.new_bytes < 3 * BLOCK + 17 + 200_000 < made.snapshot.size


def test_a_second_snapshot_stores_what_is_new(home: Path, place: Path) -> None:
    create(home, opened(place))
    again = create(home, opened(place))
    assert again.new_blocks == 0 or again.new_bytes < 50_000, "the database's copy may differ"
    write(home / "artifacts" / "ef56" / "new", b"x" * 100)
    assert create(home, opened(place)).new_bytes - again.new_bytes in range(100, 50_000)
    assert len(opened(place).snapshots()) == 3


def test_nothing_is_readable_without_the_key(home: Path, place: Path) -> None:
    secret = b"Anna Schmidt, +49 30 1234567"
    write(home / "predictions" / "reviews.parquet", secret)
    create(home, opened(place))
    stored = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert not [text for text in (secret, b"reviews.parquet") if text in stored]
    with pytest.raises(UserError, match=r"is encrypted with key \w+, and key \w+ was given"):
        opened(place, MasterKey(bytes(32)))
    assert {path.stat().st_mode & 0o077 for path in place.rglob("*")} == {0}


def test_a_new_master_key_rewrites_no_block(home: Path, place: Path, tmp_path: Path) -> None:
    create(home, opened(place))
    before = {path: path.stat().st_mtime_ns for path in (place / "blocks").rglob("*") if path.is_file()}
    new = MasterKey(bytes(32))
    change_key(str(place), KEY, new)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(UserError):
        opened(place)
    restore.restore(opened(place, new), opened(place, new).find("latest"), tmp_path / "copy")


def test_the_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert read_key(tmp_path / "key") == made
    assert made.secret.hex() not in repr(made)
    with pytest.raises(UserError, match="File exists"):
        create_key(tmp_path / "key")
    monkeypatch.delenv("RAYPATH_BACKUP_KEY", raising=False)
    with pytest.raises(UserError, match="raypath backup key FILE"):
        read_key(None)
    monkeypatch.setenv("RAYPATH_BACKUP_KEY", str(tmp_path / "key"))
    assert read_key(None) == made
    (tmp_path / "other").write_text("no key")
    with pytest.raises(UserError, match="is no key of a backup"):
        read_key(tmp_path / "other")


@pytest.mark.parametrize("damage", ["flip a bit", "remove", "swap"])
def test_a_damaged_block_is_found_and_never_restored(home: Path, place: Path, tmp_path: Path, damage: str) -> None:
    create(home, opened(place))
    assert restore.verify(opened(place)).problems == ()
    big = [path for path in (place / "blocks").rglob("*") if path.is_file() and path.stat().st_size > BLOCK]
    if damage == "remove":
        big[0].unlink()
    elif damage == "swap":
        big[0].write_bytes(big[1].read_bytes())
    else:
        data = bytearray(big[0].read_bytes())
        data[len(data) // 2] ^= 1
        big[0].write_bytes(data)
    found = restore.verify(opened(place))
    assert ["part-0.parquet of " in problem for problem in found.problems] == [True]
    copy = tmp_path / "copy"
    with pytest.raises(DataError, match="missing" if damage == "remove" else "corrupt"):
        restore.restore(opened(place), opened(place).find("latest"), copy)
    assert not [path for path in tmp_path.iterdir() if "copy" in path.name]
    if damage == "remove":  # the next backup stores it again
        create(home, opened(place))
        assert restore.verify(opened(place)).problems == ()


def test_a_damaged_snapshot_is_named_and_does_not_stop_new_ones(home: Path, place: Path) -> None:
    made = create(home, opened(place)).snapshot
    (place / "snapshots" / made.id).write_bytes(b"damaged")
    with pytest.raises(DataError, match=f"snapshot {made.id} in .* is corrupt"):
        opened(place).snapshots()
    create(home, opened(place))
    with pytest.raises(DataError):
        restore.prune(opened(place), 1)
    assert len(list((place / "snapshots").iterdir())) == 2


def test_a_home_that_is_not_empty_stays(home: Path, place: Path) -> None:
    create(home, opened(place))
    before = contents(home)
    with pytest.raises(UserError, match="is not empty"):
        restore.restore(opened(place), opened(place).find("latest"), home)
    assert contents(home) == before


def test_bad_places(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no backup in"):
        open_repository(str(tmp_path / "none"), KEY)
    with pytest.raises(UserError, match="cannot be stored at"):
        open_repository("gopher://x", KEY)
    with pytest.raises(UserError, match="is no home of a project"):
        create_backup(str(tmp_path / "place"), key=create_file(tmp_path / "k"), home=tmp_path)
    assert not (tmp_path / "place").exists(), "nor is a place made for it"
    with pytest.raises(UserError, match="which is lost with it"):
        create_backup(str(home / "backups"), key=tmp_path / "k", home=home)
    for name in ("2020", ""):
        with pytest.raises(UserError, match=f"no snapshot '{name}'"):
            opened(tmp_path / "place").find(name)
    create(home, opened(tmp_path / "place"))
    (tmp_path / "place" / "backup.json").unlink()
    with pytest.raises(DataError, match="has blocks but no"):
        opened(tmp_path / "place")


def test_a_key_is_written_only_for_a_place_that_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_file(tmp_path / "k")
    arguments = ["--key", str(tmp_path / "k"), "--place", str(tmp_path / "none")]
    assert cli.main(["backup", "key", str(tmp_path / "new"), *arguments]) == 2
    assert "there is no backup in" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_snapshots_keep_their_order_when_the_clock_is_set_back(home: Path, place: Path) -> None:
    """`prune` would delete the one that was made last."""
    made = create(home, opened(place)).snapshot
    opened(place).add(made.model_copy(update={"id": "29991231-235959-999999-ab12"}))
    last = create(home, opened(place)).snapshot
    assert opened(place).find("latest").id == last.id
    assert last.id.startswith("30000101-000000-000000-")
    restore.prune(opened(place), keep=1)
    assert [each.id for each in opened(place).snapshots()] == [last.id]


def test_two_restores_at_once_do_not_mix(home: Path, place: Path, tmp_path: Path) -> None:
    create(home, opened(place))
    copy, found = tmp_path / "copy", opened(place)

    def again(size: int) -> None:
        with pytest.raises(UserError, match="another process restores"):
            restore.restore(found, found.find("latest"), copy)

    restore.restore(found, found.find("latest"), copy, again)
    before = {name: data for name, data in contents(home).items() if name.startswith(("artifacts", "records"))}
    assert before.items() <= contents(copy).items()
    assert [path.name for path in tmp_path.iterdir() if "restoring" in path.name] == []


def test_prune_keeps_what_the_last_snapshots_need(home: Path, place: Path, tmp_path: Path) -> None:
    write(home / "artifacts" / "old" / "x", b"only in the first")
    create(home, opened(place))
    shutil.rmtree(home / "artifacts" / "old")
    for number in range(2):
        write(home / "records" / f"r{number}.json", b"{}")
        create(home, opened(place))
    snapshots, blocks = restore.prune(opened(place), keep=2)
    assert snapshots == 1
    assert blocks >= 1
    assert restore.verify(opened(place)).problems == ()
    assert restore.verify(opened(place)).unused == 0
    restore.restore(opened(place), opened(place).find("latest"), tmp_path / "copy")
    assert not (tmp_path / "copy" / "artifacts" / "old").exists()


def test_a_database_that_is_written_to_is_copied_whole(home: Path, place: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def insert() -> None:
        database = sqlite3.connect(home / "mlflow" / "mlflow.db", timeout=60)
        while not stop.is_set():
            with database:
                database.executemany("INSERT INTO runs VALUES (?)", [(n,) for n in range(10)])
        database.close()

    writer = threading.Thread(target=insert)
    writer.start()
    try:
        create(home, opened(place))
    finally:
        stop.set()
        writer.join()
    restore.restore(opened(place), opened(place).find("latest"), tmp_path / "copy")
    copy = sqlite3.connect(tmp_path / "copy" / "mlflow" / "mlflow.db")
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert copy.execute("SELECT count(*) FROM runs").fetchone()[0] % 10 == 0, "a half transaction"


def test_a_file_that_is_replaced_while_folders_are_listed_is_not_lost(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Usage files of a day are merged to one, after which the parts are removed."""
    usage = home / "access" / "usage"
    write(usage / "part.parquet", b"1")
    from raypath.deploy.store.backup import create as module

    store = module._store

    def merging(source: module.SourceFile, writer: object) -> object:
        if source.path == usage / "part.parquet":
            write(usage / "a-day.parquet", b"1")
            source.path.unlink()
        return store(source, writer)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_store", merging)
    names = {file.path for file in create(home, opened(place)).snapshot.files}
    assert [name for name in names if "usage" in name] == ["access/usage/a-day.parquet"]


def test_a_killed_backup_leaves_no_snapshot_and_the_next_one_uses_its_blocks(home: Path, place: Path) -> None:
    for number in range(30):
        write(home / "artifacts" / "many" / str(number), os.urandom(BLOCK // 4))
    code = (
        "import sys, pathlib; from raypath.deploy.store.backup.create import create\n"
        "from raypath.deploy.store.backup.encryption import MasterKey\n"
        "from raypath.deploy.store.backup.repository import open_repository\n"
        "create(pathlib.Path(sys.argv[1]), open_repository(sys.argv[2], MasterKey(bytes(range(32))), create=True),\n"
        "       lambda size: (print(size, flush=True), __import__('time').sleep(0.05)))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(home), str(place)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(12):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert opened(place).snapshots() == []
    there = len(opened(place).stored())
    assert there > 0
    made = create(home, opened(place))
    assert made.new_blocks + there <= len(opened(place).stored()) + 1
    assert restore.verify(opened(place)).problems == ()


def test_a_killed_restore_leaves_no_home(home: Path, place: Path, tmp_path: Path) -> None:
    create(home, opened(place))
    code = (
        "import sys, pathlib; from raypath.deploy.store.backup import restore\n"
        "from raypath.deploy.store.backup.encryption import MasterKey\n"
        "from raypath.deploy.store.backup.repository import open_repository\n"
        "found = open_repository(sys.argv[1], MasterKey(bytes(range(32))))\n"
        "restore.restore(found, found.find('latest'), pathlib.Path(sys.argv[2]),\n"
        "                lambda size: (print(size, flush=True), __import__('time').sleep(60)))\n"
    )
    copy = tmp_path / "copy"
    process = subprocess.Popen([sys.executable, "-c", code, str(place), str(copy)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not copy.exists()
    restore.restore(opened(place), opened(place).find("latest"), copy)
    assert (copy / "records" / "k1.json").exists()


def test_a_snapshot_cannot_write_outside_the_home(home: Path, place: Path, tmp_path: Path) -> None:
    made = create(home, opened(place)).snapshot
    evil = made.files[0].model_copy(update={"path": "../../evil"})
    with pytest.raises(DataError, match="outside the home"):
        restore.restore(opened(place), made.model_copy(update={"files": (evil,)}), tmp_path / "copy")
    assert not (tmp_path / "evil").exists()


def test_a_full_disk_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="cannot write to /dev/full"):
        places.FolderPlace("/dev/full").create("x", b"1")


def test_blocks_are_authenticated_with_their_name() -> None:
    key = RepositoryKey.new()
    name = key.name(b"data")
    assert key.open(name, key.seal(name, b"data")) == b"data"
    assert key.seal(name, b"data") != key.seal(name, b"data"), "a nonce is never used twice"
    with pytest.raises(ValueError, match="altered"):
        key.open(key.name(b"other"), key.seal(name, b"data"))
    assert name != RepositoryKey.new().name(b"data")
