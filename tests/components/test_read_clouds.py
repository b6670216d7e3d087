"""read: files in Azure's and Google's object storage, against servers on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from raypath.components import RaypathError, UserError
from raypath.components.data.sources import object_storage as objects
from raypath.components.read import ReadParams
from raypath.deploy.execution.cache_key import settings_of
from tests.components.reading import Read
from tests.deploy.store.s3 import BUCKET, KEYS, moto
from tests.waiting import free_port

# Those that Microsoft publishes for its emulator.
ACCOUNT = "devstoreaccount1"
SECRET = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of Azure's emulator."""
    program = os.environ.get("AZURITE") or shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no emulator of Azure (npm install azurite, and AZURITE=.../azurite-blob)")
    folder, port = tmp_path_factory.mktemp("azurite"), free_port()
    line = [
        program,
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--location",
        str(folder),
        "--skipApiVersionCheck",
    ]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        next(line for line in process.stdout if "successfully listens" in line)
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    finally:
        process.kill()
        process.communicate()


def test_azure(azurite: str, reading: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    for name, value in {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": SECRET,
        "AZURE_STORAGE_ENDPOINT": azurite,
    }.items():
        monkeypatch.setenv(name, value)
    _make_container(azurite, "team")
    store = objects.open_bucket("team", provider="az://")
    for name, text in {"data/train.csv": "a,x\n", "data/deep/test.csv": "b,y\n", "data/_hidden.csv": "c,z\n"}.items():
        obstore.put(store, name, f"text,label\n{text}".encode())
    assert [(row["text"], row["split"]) for row in reading("az://team/data")[1]] == [("b", "test"), ("a", "train")]
    assert [row["text"] for row in reading("az://team/data/t*.csv")[1]] == ["a"]
    params = ReadParams(uri="az://team/data")
    before = settings_of("params", params, "read")
    assert settings_of("params", params, "read") == before
    obstore.put(store, "data/train.csv", b"text,label\na,y\n")
    assert settings_of("params", params, "read") != before
    with pytest.raises(RaypathError, match="no object at az://team/none"):
        reading("az://team/none")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", SECRET[::-1].lstrip("="))
    with pytest.raises(UserError, match=r"AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"):
        reading("az://team/data")


def _make_container(url: str, name: str) -> None:
    """Make a container with a shared key, as the REST API wants it."""
    import base64
    import email.utils
    import hashlib
    import hmac

    date = email.utils.formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:2021-12-02"
    text = f"PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signed = base64.b64encode(hmac.new(base64.b64decode(SECRET), text.encode(), hashlib.sha256).digest()).decode()
    request = urllib.request.Request(f"{url}/{name}?restype=container", method="PUT", data=b"")
    request.headers = {
        "x-ms-date": date,
        "x-ms-version": "2021-12-02",
        "Authorization": f"SharedKey {ACCOUNT}:{signed}",
        "Content-type": "",
    }
    urllib.request.urlopen(request)


def test_google(reading: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's XML interface is that of S3, whose server stands in for it; signatures are not checked."""
    import obstore

    with moto() as address:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
            monkeypatch.setenv(name, value)
        store = objects.open_bucket(BUCKET)
        for name, text in {"data/train.csv": "a,x\n", "data/deep/test.csv": "b,y\n"}.items():
            obstore.put(store, name, f"text,label\n{text}".encode())
        monkeypatch.setenv("GOOGLE_BASE_URL", address)
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
        rows = reading(f"gs://{BUCKET}/data")[1]
        assert [(row["text"], row["split"]) for row in rows] == [("b", "test"), ("a", "train")]
        with pytest.raises(RaypathError, match=f"no object at gs://{BUCKET}/none"):
            reading(f"gs://{BUCKET}/none")
