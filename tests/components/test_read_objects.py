"""read: files in object storage."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator

import pytest

from raypath.components import Context, RaypathError, Unavailable, UserError
from raypath.components.data.sources import object_storage as objects
from raypath.components.read import ReadParams, read
from raypath.deploy.execution.cache_key import explain_change, settings_of
from tests.components.reading import Read
from tests.deploy.store.s3 import BUCKET, KEYS, moto


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto() as address:
        yield address


@pytest.fixture
def put(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`put(name, text)` makes an object in the bucket, below the test's name."""
    import obstore

    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    bucket = objects.open_bucket(BUCKET, request.node.name)
    return lambda name, text: obstore.put(bucket, name, text.encode()) and None


def test_objects_are_read_as_files_are(reading: Read, put: Callable[[str, str], None]) -> None:
    """One, those below a folder with their parts, those that a glob matches; nothing beside them."""
    put("data/train.csv", "text,label\na,x\nb,y\n")
    put("data/valid.csv", "text,label\nc,x\n")
    put("data/_hidden.csv", "text,label\nh,x\n")
    put("data/deep/test.csv", "text,label\nd,y\n")
    put("database.csv", "text,label\ne,x\n")
    root = f"s3://{BUCKET}/test_objects_are_read_as_files_are"
    made, rows = reading(f"{root}/data")
    assert made.source == f"{root}/data"
    assert [(row["text"], row["split"]) for row in rows] == [
        ("d", "test"),
        ("a", "train"),
        ("b", "train"),
        ("c", "valid"),
    ]
    assert [row["text"] for row in reading(f"{root}/data/valid.csv")[1]] == ["c"]
    assert [row["text"] for row in reading(f"{root}/data/t*.csv")[1]] == ["a", "b"]
    assert [row["text"] for row in reading(f"{root}/**/te?t.csv")[1]] == ["d"]
    assert [row["split"] for row in reading(f"{root}/data/train.csv", valid=f"{root}/data/valid.csv")[1]][-1] == "valid"


def test_a_key_follows_what_is_in_the_bucket(put: Callable[[str, str], None]) -> None:
    """Another content, or another object below a folder, is another key; the same content is the same."""
    params = ReadParams(uri=f"s3://{BUCKET}/test_a_key_follows_what_is_in_the_bucket/data")

    def parts() -> dict[str, str]:
        return settings_of("params", params, "read")

    put("data/a.csv", "text,label\na,x\n")
    first = parts()
    put("data/a.csv", "text,label\na,x\n")
    assert parts() == first
    put("data/a.csv", "text,label\na,y\n")
    second = parts()
    put("data/b.csv", "text,label\nb,y\n")
    assert first != second != parts() != first
    assert explain_change(parts(), first) == f"files of {params.uri} changed"


def test_copies_go_when_they_were_read(make_context: Callable[..., Context], put: Callable[[str, str], None]) -> None:
    put("a.csv", "text,label\na,x\n")
    ctx = make_context("read")
    read.fn(ctx, ReadParams(uri=f"s3://{BUCKET}/test_copies_go_when_they_were_read"))
    assert not list(ctx.scratch.rglob("*.csv"))


def test_a_key_that_is_no_path_is_named(
    reading: Read, put: Callable[[str, str], None], server: str, request: pytest.FixtureRequest
) -> None:
    put("a.csv", "text,label\na,x\n")
    root = f"{BUCKET}/{request.node.name}"
    other = http.client.HTTPConnection(server.removeprefix("http://"))
    other.request("PUT", f"/{root}/../up.csv", "text,label\nb,y\n")
    assert other.getresponse().status == 200
    other.close()
    with pytest.raises(UserError, match=r"whose key is not a path: .*/\.\./up\.csv; rename or delete the object"):
        reading(f"s3://{root}")


def test_what_is_wrong_with_a_bucket_is_one_line(
    reading: Read, put: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a.txt", "a")
    root = f"s3://{BUCKET}/test_what_is_wrong_with_a_bucket_is_one_line"
    for uri, says in (
        (f"{root}/none", "no object at .*none; wanted an object, a folder or a glob; correct read.uri"),
        (f"{root}/none*.csv", "no object at"),
        (f"{root}/a.txt", "a.txt has an unknown extension"),
        ("s3://elsewhere/a.csv", "no such bucket"),
        ("s3://A_B/c.csv", "wanted s3://BUCKET/KEY"),
    ):
        with pytest.raises(RaypathError, match=says) as told:
            reading(uri)
        assert "\n" not in str(told.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(objects, "RETRIES", 0)
    with pytest.raises(Unavailable, match="does not respond"):
        reading(f"{root}/a.csv")
