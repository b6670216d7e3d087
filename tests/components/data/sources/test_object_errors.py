"""Objects in buckets: their URIs, globs and endpoints, and each error of the client in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypath.components.core.errors import DataError, ParamsError, RaypathError, Unavailable, UserError
from raypath.components.data.sources import object_storage
from raypath.components.data.sources.data_file import SourceObject
from raypath.components.data.sources.object_storage import Objects, download, endpoint, glob_pattern, translate_error


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("s3://bucket", "got s3://bucket; wanted s3://BUCKET/KEY; name a file, a folder or a glob in a bucket"),
        ("gs://b/key", "got gs://b/key; wanted gs://BUCKET/KEY; name a file, a folder or a glob in a bucket"),
        ("az:///key", "got az:///key; wanted az://BUCKET/KEY; name a file, a folder or a glob in a bucket"),
    ],
)
def test_uris_of_objects(uri: str, wanted: str) -> None:
    with pytest.raises(ParamsError) as caught:
        Objects(uri)
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("key", "matching", "others"),
    [
        ("a/*.csv", ["a/.csv", "a/x.csv"], ["a/b/x.csv", "a/x.csvx", "b/x.csv"]),
        ("a/**/x?.csv", ["a/x1.csv", "a/b/c/x1.csv"], ["a/x.csv", "a/x/.csv", "ax1.csv"]),
        ("a[0-9][!a-b].csv", ["a1c.csv"], ["a1a.csv", "abc.csv", "a12b.csv"]),
        ("a[.csv", ["a[.csv"], ["a.csv"]),
        ("a[]x].c+v", ["a].c+v", "ax.c+v"], ["a].ccv"]),
        ("a\n*", ["a\nb"], ["a b"]),
    ],
)
def test_globs_of_keys(key: str, matching: list[str], others: list[str]) -> None:
    pattern = glob_pattern(key)
    assert [each for each in matching + others if pattern.fullmatch(each)] == matching


def test_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    order = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
    azure = ["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "AZURITE_BLOB_STORAGE_URL"]
    for names, provider in ((order, "s3://"), (["GOOGLE_BASE_URL"], "gs://"), (azure, "az://")):
        for name in names:
            monkeypatch.delenv(name, raising=False)
        assert endpoint(provider) == ""
        for name in reversed(names):
            monkeypatch.setenv(name, f"http://{name.lower()}")
            assert endpoint(provider) == f"http://{name.lower()}"
    assert endpoint() == "http://aws_endpoint_url_s3"


PERMISSIONS = "and the permissions on the bucket"
KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def _errors() -> list[tuple[str, str, str, type[RaypathError], str]]:
    return [
        ("InvalidPathError", 'Error parsing Path "a//b": x', "s3://b/f", UserError, "s3://b/f has an object whose key "
         "is not a path: a//b; rename or delete the object; .. and // are not allowed in keys"),
        ("InvalidPathError", "x", "s3://b/f", UserError,
         "s3://b/f has an object whose key is not a path; "
         "rename or delete the object; .. and // are not allowed in keys"),
        ("PermissionDeniedError", "<Code>AccessDenied</Code>", "s3://b/f", UserError,
         f"s3://b/f rejects these credentials (AccessDenied); check {KEYS}, {PERMISSIONS}"),
        ("UnauthenticatedError", "x", "gs://b", UserError,
         f"gs://b rejects these credentials; check GOOGLE_APPLICATION_CREDENTIALS, {PERMISSIONS}"),
        ("UnauthenticatedError", "x", "az://b", UserError, "az://b rejects these credentials; "
         f"check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, {PERMISSIONS}"),
        ("GenericError", "http://169.254.170.2/x", "s3://b", UserError,
         f"s3://b: no credentials; set {KEYS}, run `raypath down`, then run the command again"),
        ("GenericError", "http://x/latest/api/token", "s3://b", UserError,
         f"s3://b: no credentials; set {KEYS}, run `raypath down`, then run the command again"),
        ("GenericError", "status code: 503 <Code>SlowDown</Code>", "s3://b", Unavailable, "s3://b does not respond "
         "(SlowDown), for key; check AWS_ENDPOINT_URL_S3 and the network, then run the command again"),
        ("GenericError", "status code: 503", "s3://b", Unavailable, "s3://b does not respond (status 503), for key; "
         "check AWS_ENDPOINT_URL_S3 and the network, then run the command again"),
        ("GenericError", "x", "gs://b", Unavailable, "gs://b does not respond (no connection), for key; "
         "check GOOGLE_BASE_URL and the network, then run the command again"),
        ("GenericError", "x", "az://b", Unavailable, "az://b at http://az does not respond (no connection), for key; "
         "check AZURE_ENDPOINT and the network, then run the command again"),
        ("GenericError", "x", "folder", Unavailable, "folder does not respond (no connection), for key; "
         "check AWS_ENDPOINT_URL_S3 and the network, then run the command again"),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(len(_errors())))
def test_errors_of_the_client(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exceptions = pytest.importorskip("obstore.exceptions")
    name, text, address, kind, wanted = _errors()[number]
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "GOOGLE_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    if "http://az" in wanted:
        monkeypatch.setenv("AZURE_ENDPOINT", "http://az")
    made = translate_error(getattr(exceptions, name)(text), address, "key")
    assert (type(made), str(made)) == (kind, wanted)
    if kind is Unavailable:
        assert str(translate_error(getattr(exceptions, name)(text), address)) == wanted.replace(", for key", "")


def test_an_object_that_changes_during_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    obstore = pytest.importorskip("obstore")
    store = pytest.importorskip("obstore.store").MemoryStore()
    monkeypatch.setattr(object_storage, "open_bucket", lambda *_, **__: store)
    obstore.put(store, "f/a.csv", b"x,y")
    uri = "s3://bucket/f/a.csv"
    [found] = Objects("s3://bucket/f").listed()
    download(SourceObject(uri, found.size, found.tag), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == b"x,y"
    for size, tag, wanted in (
        (3, "other", f"{uri} changed during the download; run the command again"),
        (1_004, found.tag, f"{uri}: got 3 of 1,004 bytes of f/a.csv; run the command again"),
    ):
        with pytest.raises(Unavailable) as caught:
            download(SourceObject(uri, size, tag), tmp_path / "b.csv")
        assert str(caught.value) == wanted
        assert not (tmp_path / "b.csv").exists()
    with pytest.raises(DataError) as missing:
        Objects("s3://bucket/none").listed()
    text = "no object at s3://bucket/none; wanted an object, a folder or a glob; correct read.uri"
    assert str(missing.value) == text
