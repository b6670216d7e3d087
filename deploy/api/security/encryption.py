"""Encryption at rest of a home: turn it on, show its state, change its master key."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raypath.components.core.errors import ParamsError, UserError
from raypath.components.core.files import locked
from raypath.components.encryption.envelope import is_sealed
from raypath.components.encryption.master_keys import (
    LocalKey,
    MasterKey,
    command_key,
    create_key,
    environment_key,
    read_key,
)
from raypath.components.encryption.subjects import SEALED, destroy_key, open_rows
from raypath.components.encryption.vault import (
    FOLDER,
    Vault,
    create_vault,
    is_encrypted,
    read_settings,
    rotate_master,
    vault_for,
)
from raypath.components.encryption.working_folder import memory_disk
from raypath.deploy.api.project import home_folder, private_process
from raypath.deploy.api.results import Result
from raypath.deploy.execution.run_history import load_runs
from raypath.deploy.local import processes
from raypath.deploy.local import state as services
from raypath.deploy.store.audit.log import audited
from raypath.deploy.store.encryption import convert
from raypath.deploy.store.forgetting.removal import subject_hash
from raypath.deploy.store.home_format import check_format, check_keys
from raypath.deploy.store.store import SHARED, Store

Progress = Callable[[int], object]


class EncryptionStatus(Result):
    """State of the encryption at rest of a home."""

    home: str
    encrypted: bool
    master: str
    """file, environment or command; "" without encryption."""
    key: str
    """Id of the master key; "" for one behind a command."""
    file: str
    """File of the master key."""
    memory: str
    """Folder in memory for the plaintext of runs and services."""
    sealed: dict[str, int]
    """Numbers of encrypted files by kind."""
    plain: dict[str, int]
    """Numbers of files in plaintext by kind; `raypath encryption init` encrypts them."""


@private_process()
def init_encryption(
    *,
    key: Path | None = None,
    wrap: str = "",
    unwrap: str = "",
    home: str | Path | None = None,
    progress: Progress = lambda _: None,
) -> EncryptionStatus:
    """Turn on encryption at rest for a home, and encrypt what it has. Again, it resumes an interrupted conversion.

    Args:
        key: File of the master key, created when it does not exist; default $RAYPATH_MASTER_KEY, else a new file in
            the user's configuration folder.
        wrap: Command of a key management service that encrypts its standard input; with `unwrap`, in place of a key.
        unwrap: Command that decrypts.
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.
        progress: Called with the size of each file that was encrypted.

    Raises UserError while services or runs of the home are active.
    """
    folder = home_folder(home)
    _check_idle(folder)
    memory_disk()
    place = _place(folder)
    with audited(folder, "encryption.init", str(folder)) as detail, _exclusive(folder):
        vault = _vault(folder, key, wrap, unwrap)
        check_format(folder)
        detail["files"] = convert.encrypt(folder, place, vault, progress)
    return encryption_status(home=folder)


def encryption_status(*, home: str | Path | None = None) -> EncryptionStatus:
    """Return the state of the encryption at rest of a home. The master key is not needed.

    Raises UserError for an encrypted home that has lost its keys.
    """
    folder = home_folder(home)
    check_keys(folder)
    settings = read_settings(folder)
    sealed, plain = convert.count_files(folder, _place(folder))
    return EncryptionStatus(
        home=str(folder),
        encrypted=bool(settings),
        master=settings.get("kind", ""),
        key=settings.get("id", ""),
        file=settings.get("path", ""),
        memory=str(memory_disk()) if settings else "",
        sealed=dict(sealed),
        plain=dict(plain),
    )


@private_process()
def rotate_encryption(
    *, key: Path | None = None, wrap: str = "", unwrap: str = "", home: str | Path | None = None
) -> EncryptionStatus:
    """Change the master key of a home; no data is rewritten. Arguments are those of `init_encryption`.

    A key that is given as neither file nor commands is that of $RAYPATH_NEW_MASTER_KEY.
    """
    folder = home_folder(home)
    vault = vault_for(folder) if is_encrypted(folder) else None
    if vault is None:
        raise UserError(f"{folder} is not encrypted", fix="`raypath encryption init` turns it on")
    if key is None and not (wrap or unwrap):
        found = environment_key(NEW_VARIABLE)
        if found is None:
            raise ParamsError("no new master key is given", fix=f"give --key FILE, --wrap, or set ${NEW_VARIABLE}")
        master: MasterKey = found
    else:
        master = _master(folder, key, wrap, unwrap)
    before = read_settings(folder)
    if master.settings == before:
        raise ParamsError("this is the master key of the home already", fix="give another")
    with audited(folder, "encryption.rotate", str(folder)) as detail, _exclusive(folder):
        rotate_master(vault, master)
        detail["key"] = master.settings.get("id", "command")
    return encryption_status(home=folder)


NEW_VARIABLE = "RAYPATH_NEW_MASTER_KEY"
"""Environment variable with the next master key."""


@private_process()
def decrypt_files(source: Path, target: Path, *, home: str | Path | None = None) -> int:
    """Decrypt a file of an encrypted home, or all files of a folder, to a new folder; returns their number."""
    folder = home_folder(home)
    vault = vault_for(folder) if is_encrypted(folder) else None
    if vault is None:
        raise UserError(f"{folder} is not encrypted", fix="its files can be read as they are")
    if not source.exists() or target.exists():
        raise ParamsError(f"{source} is missing, or {target} exists", fix="give a file or folder, and a new folder")
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    sealed = [path for path in files if is_sealed(path)]
    if not sealed:
        raise ParamsError(f"{source} has no encrypted files", fix="they can be read as they are")
    with audited(folder, "encryption.decrypt", str(source), {"files": len(sealed)}):
        for path in sealed:
            inside = path.relative_to(source) if source.is_dir() else Path(path.name)
            (target / inside).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            vault.open_file(None, path, target / inside)
            if path.suffix == ".parquet":
                _open_subjects(vault, target / inside)
    return len(sealed)


@private_process()
def shred_subject(subject: str, *, home: str | Path | None = None) -> bool:
    """Destroy the key of a subject, whose rows in the prediction log are unreadable from now on; False without one."""
    folder = home_folder(home)
    vault = vault_for(folder) if is_encrypted(folder) else None
    if vault is None:
        raise UserError(f"{folder} is not encrypted", fix="`raypath encryption init` turns it on")
    with audited(folder, "encryption.shred", subject_hash(folder, subject)) as detail:
        detail["key_destroyed"] = destroy_key(vault, subject)
    return bool(detail["key_destroyed"])


def _open_subjects(vault: Vault, path: Path) -> None:
    """Open the rows of subjects in a decrypted file, if it has some."""
    import pyarrow.parquet as pq

    if SEALED in pq.read_schema(path).names:
        rows, _ = open_rows(vault, pq.read_table(path, partitioning=None))
        pq.write_table(rows, path, compression="zstd")


def _vault(home: Path, key: Path | None, wrap: str, unwrap: str) -> Vault:
    """Return the keys of a home, created if there are none."""
    if not is_encrypted(home):
        Store(home).open()
        return create_vault(home, _master(home, key, wrap, unwrap))
    if (key or wrap or unwrap) and not _is_current(home, key, wrap, unwrap):
        raise UserError(f"{home} is encrypted already", fix="`raypath encryption rotate` changes its master key")
    found = vault_for(home)
    assert found is not None
    return found


def _is_current(home: Path, key: Path | None, wrap: str, unwrap: str) -> bool:
    """Return True if these arguments name the master key that the home has, as those of an interrupted `init` do."""
    settings = read_settings(home)
    if key is not None:
        return key.expanduser().exists() and read_key(key.expanduser()).id == settings.get("id")
    return (settings.get("wrap"), settings.get("unwrap")) == (shlex.split(wrap), shlex.split(unwrap))


@contextmanager
def _exclusive(home: Path) -> Iterator[None]:
    """Let one process at a time make or change keys: of two home keys, one would be lost. Raises UserError."""
    with locked(home / FOLDER / "keys.lock", fcntl.LOCK_EX | fcntl.LOCK_NB) as free:
        if not free:
            what = "another process changes the encryption of this home"
            raise UserError(what, fix="wait for its end, then run the same command again")
        yield


def _master(home: Path, key: Path | None, wrap: str, unwrap: str) -> MasterKey:
    if wrap or unwrap:
        if key is not None:
            raise ParamsError("a key and commands are given", fix="give --key, or --wrap and --unwrap")
        return command_key(wrap, unwrap)
    given = environment_key() if key is None else None
    if given is not None:
        return given
    path = (key or _default_file(home)).expanduser().resolve()
    if path.is_relative_to(home):
        raise ParamsError(f"{path} is in the home, whose copies would have the key", fix="name a file elsewhere")
    found: LocalKey = read_key(path) if path.exists() else create_key(path)
    return found


def _default_file(home: Path) -> Path:
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config / "raypath" / f"master-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}.key"


def _place(home: Path) -> Path:
    """Return the folder with artifacts and records. Those that are in a bucket already stay as they are."""
    shared = os.environ.get(SHARED, "")
    return Path(shared).expanduser().resolve() if shared and "://" not in shared else home


def _check_idle(home: Path) -> None:
    found = services.read(home) if home.is_dir() else None
    if found is not None and any(each and processes.find(each) for _, each in found.each()):
        raise UserError("services of this home are up", fix="`raypath down`, then run the same command again")
    if any(run.status == "running" and not run.interrupted() for run in load_runs(home)):
        raise UserError("a run of this home is in progress", fix="wait for its end, then run the same command again")
