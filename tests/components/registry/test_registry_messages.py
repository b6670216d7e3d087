"""Messages of signatures, of the cache and of the gate, each in full."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.evaluation.paired import Comparison
from raypath.components.registry import audit, cache, evidence, presentation
from raypath.components.registry.evidence import Evidence, Rules, Slice
from raypath.components.registry.signing import keys, manifest, records
from raypath.components.registry.signing.check import check_files
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.tracking.tags import (
    LIVE,
    PREVIOUS_CHAMPION,
    PROMOTION,
    REASON,
    SIGNATURE,
)
from tests.raised import raised

URI = "http://127.0.0.1:9"


def test_promotions_and_permissions_that_do_not_hold() -> None:
    key, trusted = keys.signing_key(None), keys.trusted_keys(None)

    def verify(tags: dict[str, str]) -> str:
        with pytest.raises(Untrusted) as caught:
            records.verify_promotion("m", 2, tags, trusted)
        return f"{caught.value.state}: {caught.value.reason}"

    def permit(tags: dict[str, str], name: str = "m") -> str:
        with pytest.raises(Untrusted) as caught:
            records.verify_permission(name, 2, tags, trusted)
        return f"{caught.value.state}: {caught.value.reason}"

    promotion = records.sign_promotion(key, "m", 2, 1, "better")
    good = {PROMOTION: promotion, PREVIOUS_CHAMPION: "1", REASON: "better"}
    records.verify_promotion("m", 2, good, trusted)
    assert verify({}) == "unsigned: was made champion without a signature"
    for change in ({REASON: "best"}, {PREVIOUS_CHAMPION: "3"}):
        assert verify(good | change) == "altered: has a promotion that was changed after it was signed"
    other = records.sign_promotion(key, "m", 3, 1, "better")
    assert verify(good | {PROMOTION: other}) == "altered: has the promotion of another version"
    permission = records.Permission(1, "run")
    allowed = {LIVE: records.sign_permission(key, "m", 2, permission)}
    assert records.verify_permission("m", 2, allowed, trusted) == permission
    records.verify_promotion("m", 2, allowed | {PREVIOUS_CHAMPION: "1"}, trusted)
    assert verify(allowed | {PREVIOUS_CHAMPION: "3"}) == "unsigned: was made champion without a signature"
    assert permit({}) == "unsigned: has no permission to be promoted by live requests"
    assert permit(allowed, "n") == "altered: has the permission of another version"
    assert permit({LIVE: "{"}) == "altered: has a damaged signature"
    assert permit({LIVE: promotion}) == "altered: has a signature that does not match"
    signed = records.sign_version(key, "m", 2, "digest", {"raypath.task": "t"})
    found = records.verify_version("m", 2, {SIGNATURE: signed, "raypath.task": "t", "other": "x"}, trusted)
    assert (found.manifest, found.key) == ("digest", key.public.id)
    later = ["decided", "live", "previous_champion", "promotion", "reason", "rejected", "signature"]
    tags = {f"raypath.{name}": "x" for name in (*later, "task", "run")} | {"mlflow.x": "y", "raypath.base": ""}
    assert records.signed_tags(tags) == {"raypath.task": "x", "raypath.run": "x"}


def test_files_that_do_not_belong_to_a_version(tmp_path: Path) -> None:
    key, trusted = keys.signing_key(None), keys.trusted_keys(None)
    (tmp_path / "config.json").write_text("{}")

    def check(digest: str, name: str = "m") -> str:
        with pytest.raises(Untrusted) as caught:
            check_files(tmp_path, name, digest, trusted)
        return f"{caught.value.state}: {caught.value.reason}"

    assert check("x") == "unsigned: is not signed"
    made = manifest.sign_folder(key, tmp_path, "", "m", {"raypath.task": "t"})
    assert (made.model, made.tags, list(made.files), made.package) == ("m", {"raypath.task": "t"}, ["config.json"], {})
    assert check_files(tmp_path, "m", made.digest, trusted) == made
    for digest, name in (("x", "m"), (made.digest, "n")):
        assert check(digest, name) == "altered: has the files of another version"
    (tmp_path / "config.json").write_text("[]")
    assert check(made.digest) == "altered: has a file config.json that is not the one that was registered"
    (tmp_path / "config.json").unlink()
    assert check(made.digest) == "altered: lacks its file config.json"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / ("a" * 120)).touch()
    assert check(made.digest) == f"altered: has a file {'a' * 100!r} that was not registered"
    (tmp_path / ("a" * 120)).unlink()
    (tmp_path / "link").symlink_to("config.json")
    assert check(made.digest) == "altered: has a link or special file 'link'"
    (tmp_path / "link").unlink()
    for text in ("", "{}", "[]", "{" * 10, " " * (5 << 20)):
        (tmp_path / manifest.FILE).write_text(text)
        assert check(made.digest) == "altered: has a signature.json that cannot be read"
    signed = manifest.envelope.sign(key, "application/vnd.in-toto+json", b'{"_type": "x", "predicateType": "y"}')
    (tmp_path / manifest.FILE).write_text(manifest.json.dumps({"dsseEnvelope": signed}))
    short = keys.short(key.public.id)
    assert check(made.digest) == f"altered: has a signature.json of another program (key {short})"


def test_keys_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (keys.PRIVATE, keys.PUBLIC):
        monkeypatch.delenv(name, raising=False)
    make = "set $RAYPATH_SIGNING_KEY, or make a key with `raypath models --rotate-key`"
    assert raised(lambda: keys.signing_key(tmp_path)) == f"UserError: there is no key to sign the model with; {make}"
    (tmp_path / "a.key").write_text("x")
    private = "is not a private key on P-256 in PEM; make one with `raypath models --rotate-key`"
    assert raised(lambda: keys.signing_key(tmp_path)) == f"UserError: {tmp_path}/a.key {private}"
    (tmp_path / "a.pub").write_text("x")
    public = "has no public key on P-256 in PEM; give the file signing/KEYID.pub of a home"
    assert raised(lambda: keys.trusted_keys(tmp_path)) == f"UserError: {tmp_path}/a.pub {public}"
    (tmp_path / "a.pub").write_bytes(b"\xff")
    text = f"UserError: {tmp_path}/a.pub cannot be read (not text); give a PEM file"
    assert raised(lambda: keys.trusted_keys(tmp_path)) == text
    monkeypatch.setenv(keys.PRIVATE, str(tmp_path / "none"))
    read = f"{tmp_path}/none cannot be read (No such file or directory); give a PEM file"
    assert raised(lambda: keys.signing_key(None)) == f"UserError: $RAYPATH_SIGNING_KEY: {read}"
    monkeypatch.setenv(keys.PRIVATE, "-----BEGIN nothing")
    assert raised(lambda: keys.signing_key(None)) == f"UserError: RAYPATH_SIGNING_KEY {private}"
    assert keys.names_of(["b" * 64, "a" * 64]) == f"{'a' * 16}, {'b' * 16}"
    assert keys.names_of([]) == "none"


def test_a_copy_that_is_corrupt_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, trusted = tmp_path / "shop-1", keys.trusted_keys(None)
    assert not cache.check_copy(folder, "shop", 1, "digest", trusted)
    assert cache.copy_id(folder) == 0
    folder.mkdir()
    fix = "look at it, then run `raypath models --sign shop 1`, or register the model again"
    text = f"DataError: shop version 1 is not signed; {fix}"
    assert raised(lambda: cache.check_copy(folder, "shop", 1, "digest", trusted, renewable=False)) == text
    cache.discard_corrupt(folder, 7)
    assert folder.is_dir(), "another process has replaced it"
    assert not cache.check_copy(folder, "shop", 1, "digest", trusted)
    assert caplog.messages == [f"the copy of shop in {folder} is not signed; it is corrupt and is fetched again"]
    assert [path.name for path in tmp_path.iterdir()] == [".shop-1.lock"]
    place = cache._folder_of("uri", "shop", 1, "models:/m", tmp_path)
    assert (place.parent, place.name[:7], len(place.name)) == (tmp_path, "shop-1-", 23)
    changed = [("u", "shop", 1, "s"), ("uri", "shop", 2, "models:/m"), ("uri", "shop", 1, "models:/n")]
    assert len({place, *(cache._folder_of(*given, tmp_path) for given in changed)}) == 4
    place.mkdir()
    assert cache.cached("uri", "shop", 1, "models:/m", tmp_path) == place
    assert cache.cached("uri", "shop", 0, "models:/m", tmp_path) is None
    assert cache.cached("uri", "shop", 1, "", tmp_path) is None


def test_files_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    asked: list[Any] = []

    def download(**given: Any) -> str:
        asked.append(given)
        raise given["dst_path"] and failure[0]

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", download)
    failure: list[Exception] = [OSError("disk\nfull")]
    found: Any = SimpleNamespace(name="shop", version="1", source="models:/m-1")
    server: Any = SimpleNamespace(
        get_model_version_download_uri=lambda name, version: f"{name}:{version}",
        get_registered_model=lambda name: name,
        get_model_version=lambda name, version: found,
        get_logged_model=lambda model: SimpleNamespace(artifact_location=f"at {model}"),
    )

    def fetch() -> Any:
        return cache.fetch(server, URI, found, tmp_path, "digest", {})

    assert raised(fetch) == "Unavailable: version 1 of shop cannot be fetched (disk full); try again"
    assert (asked[0]["artifact_uri"], asked[0]["tracking_uri"]) == ("shop:1/artifacts/model", URI)
    (tmp_path / "got").mkdir()
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda **_: str(tmp_path / "got"))
    text = "DataError: version 1 of shop is not a model that Raypath registered; choose another version"
    assert raised(fetch) == text

    def audited() -> None:
        with audit._downloaded(server, URI, "shop", 1):
            pass

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", download)
    failure[0] = MlflowException("x " * 300)
    text = f"DataError: the files of shop version 1 cannot be fetched ({'x ' * 100}); see the MLflow server's log"
    assert raised(audited) == text
    assert asked[-1]["artifact_uri"] == "at m-1"
    for source in ("runs:/m-1", "models:/x"):
        found.source = source
        text = "DataError: shop version 1 is no model that Raypath registered; register the model with a workflow"
        assert raised(audited) == text


def _compared(gain: float, chance: float = 0.5, low: float = -0.02, high: float = 0.08, **more: int) -> Comparison:
    rows = {"rows": 1200, "won": 30, "lost": 10, "tied": 1160} | more
    return Comparison(
        new=0.9 + gain, old=0.9, gain=gain, low=low, high=high, chance=chance, bootstrap=0.0, randomization=0.0, **rows
    )


@pytest.mark.parametrize(
    ("found", "promoted", "text"),
    [
        (
            Evidence("f1", _compared(0.03, 0.95)),
            True,
            "f1 0.9300 against 0.9000 of it, better by 0.0300 (95% interval -0.0200 to 0.0800) on the same "
            "1,200 test rows with 30 won and 10 lost: chance of being better 95%, wanted 90%",
        ),
        (
            Evidence("f1", _compared(-0.03, 0.2, -0.08, 0.02), note="scored again"),
            False,
            "f1 0.8700 against 0.9000 of it (scored again), worse by 0.0300 (95% interval -0.0200 to 0.0800) on the "
            "same 1,200 test rows with 30 won and 10 lost: chance of being better 20%, wanted 90%",
        ),
        (
            Evidence("f1", _compared(0.0, 0.5, 0.0, 0.0, rows=1, won=0, lost=0, tied=1)),
            False,
            "f1 0.9000 against 0.9000 of it, equal (95% interval 0.0000 to 0.0000) on the same 1 test row: "
            "chance of being better 50%, wanted 90%; 1 rows show large differences only",
        ),
        (
            Evidence("f1", _compared(0.0, 0.5, -0.009, 0.01, rows=100, tied=60), speeds=(11.0, 10.0)),
            True,
            "f1 0.9000 against 0.9000 of it, equal (95% interval -0.0090 to 0.0100) on the same 100 test rows with "
            "30 won and 10 lost: not worse by 0.0100 or more, and cheaper to serve at 11 rows/s against 10",
        ),
    ],
)
def test_the_reason_of_a_decision(found: Evidence, promoted: bool, text: str) -> None:
    decision = evidence.decide(found, "it", Rules())
    assert (decision.promote, decision.reason, decision.chance) == (promoted, text, found.comparison.chance)


def test_a_slice_falls_at_its_limits() -> None:
    def decided(*slices: tuple[float, float]) -> tuple[bool, float, str]:
        made = [Slice(f"slice {n}", _compared(*each)) for n, each in enumerate(slices)]
        decision = evidence.decide(Evidence("f1", _compared(0.03, 0.9), made), "it", Rules(confidence=0.9))
        return decision.promote, decision.chance, decision.reason.partition("wanted 90%")[2]

    assert decided((-0.05, 0.0), (-0.06, 0.11)) == (True, 0.9, "")
    fallen = ", but slice 1 (1,200 rows) fell by 0.0700, more than 0.0500"
    assert decided((-0.06, 0.0), (-0.07, 0.05)) == (False, 0.0, fallen)


def test_a_version_is_described() -> None:
    metrics = {"macro_f1": 0.5, "macro_f1_low": 0.25, "macro_f1_high": 0.75, "ece": 0.125}
    tags = {"raypath.task": "t", "raypath.labels": "3", "raypath.base": "b", "raypath.precision": "bf16"}
    head = "| metric on the test split | value | 95% interval |\n| --- | --- | --- |\n"
    table = f"{head}| macro_f1 | 0.5000 | 0.2500 to 0.7500 |\n| ece | 0.1250 |  |"
    found = presentation.describe_version(tags | {"raypath.data": "9 rows of x"}, metrics)
    assert found == f"Task `t`, 3 labels, base `b`, inference in `bf16`.\n\nTested on 9 rows of x.\n\n{table}"
    assert presentation.describe_version({"raypath.labels": "0"}, metrics) == f"Task ``.\n\n{table}"
    assert presentation.main_metrics({"a": 1, "b": 1, "c": 1, "d": 1, "d_low": 1, "d_high": 1}, "c") == ["c", "d", "a"]
