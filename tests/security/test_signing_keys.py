"""Keys and signatures by themselves: what is private stays private, and only what was signed is accepted."""

import base64
import json
import stat
from pathlib import Path

import pytest

from raypath.components.core.errors import DataError, UserError
from raypath.components.registry.signing import keys
from raypath.components.registry.signing.check import check_version
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.manifest import FILE, check_folder, read_manifest, sign_folder
from raypath.components.registry.signing.records import sign_promotion, sign_version
from raypath.components.tracking.tags import PREVIOUS_CHAMPION, PROMOTION, REASON, SIGNATURE

TAGS = {"raypath.task": "text_classification", "raypath.metric.macro_f1": "0.8", "raypath.run": ""}
DIGEST = "d" * 64


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (keys.PRIVATE, keys.PUBLIC):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def signing(tmp_path: Path) -> Path:
    keys.ensure_key(tmp_path / "signing")
    return tmp_path / "signing"


def test_the_private_key_is_its_owners_alone_and_is_not_shown(signing: Path) -> None:
    [private] = signing.glob("*.key")
    assert (stat.S_IMODE(private.stat().st_mode), stat.S_IMODE(signing.stat().st_mode)) == (0o600, 0o700)
    key = keys.signing_key(signing)
    assert repr(key) == f"SigningKey({private.stem})"
    assert list(keys.trusted_keys(signing)) == [key.public.id]
    keys.ensure_key(signing)
    assert list(signing.glob("*.key")) == [private]


def test_a_rotated_key_signs_and_the_one_before_is_trusted_until_it_is_removed(signing: Path) -> None:
    tags = TAGS | {SIGNATURE: sign_version(keys.signing_key(signing), "m", 1, DIGEST, TAGS)}
    before = keys.signing_key(signing).public.id
    after = keys.rotate_key(signing)
    assert [path.stem for path in signing.glob("*.key")] == [keys.short(after)]
    assert set(keys.trusted_keys(signing)) == {before, after}
    assert check_version("m", 1, tags, keys.trusted_keys(signing)) == DIGEST
    (signing / f"{keys.short(before)}.pub").unlink()
    with pytest.raises(DataError, match=f"m version 1 is signed by key '{keys.short(before)}', which is not trusted"):
        check_version("m", 1, tags, keys.trusted_keys(signing))


def test_keys_come_from_the_environment_as_text_file_or_folder(signing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [private], [public] = signing.glob("*.key"), signing.glob("*.pub")
    wanted = keys.signing_key(signing).public.id
    with pytest.raises(UserError, match="no key to sign the model with"):
        keys.signing_key(None)
    assert keys.trusted_keys(None) == {}
    for given in (str(private), private.read_text()):
        monkeypatch.setenv(keys.PRIVATE, given)
        assert keys.signing_key(None).public.id == wanted
        assert set(keys.trusted_keys(None)) == {wanted}
    monkeypatch.delenv(keys.PRIVATE)
    for given in (str(public), public.read_text(), str(signing)):
        monkeypatch.setenv(keys.PUBLIC, given)
        assert set(keys.trusted_keys(None)) == {wanted}


@pytest.mark.parametrize("name", [keys.PRIVATE, keys.PUBLIC])
@pytest.mark.parametrize("content", ["SECRET", "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n"])
def test_a_wrong_key_is_one_line_that_does_not_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    (tmp_path / "key").write_text(content)
    for given in (str(tmp_path / "key"), str(tmp_path / "none"), *([content] if content.startswith("-") else [])):
        monkeypatch.setenv(name, given)
        with pytest.raises(UserError) as found:
            keys.signing_key(None) if name == keys.PRIVATE else keys.trusted_keys(None)
        assert "\n" not in str(found.value)
        assert "SECRET" not in str(found.value)


def forged(envelope: str, **changes: object) -> str:
    """An envelope whose payload says something else."""
    found = json.loads(envelope)
    payload = json.loads(base64.b64decode(found["payload"])) | changes
    found["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    return json.dumps(found)


def test_a_version_is_bound_to_its_name_number_tags_and_files(signing: Path, tmp_path: Path) -> None:
    key, trusted = keys.signing_key(signing), keys.trusted_keys(signing)
    record = sign_version(key, "m", 1, DIGEST, TAGS)
    good = TAGS | {SIGNATURE: record, REASON: "better"}
    assert check_version("m", 1, good, trusted) == DIGEST
    foreign = tmp_path / "foreign"
    keys.ensure_key(foreign)
    wrong: dict[str, tuple[str, int, dict[str, str]]] = {
        "is not signed": ("m", 1, TAGS),
        "has the signature of another version": ("m", 2, good),
        "has the signature of another": ("n", 1, good),
        "has tags or metrics that were changed": ("m", 1, good | {"raypath.metric.macro_f1": "0.99"}),
        "has tags or metrics that were": ("m", 1, good | {"raypath.metric.accuracy": "1.0"}),
        "has tags or metrics": ("m", 1, {SIGNATURE: record}),
        "has a signature that does not match": ("m", 1, good | {SIGNATURE: forged(record, manifest="e" * 64)}),
        "has a damaged signature": ("m", 1, good | {SIGNATURE: "{}"}),
        "has a damaged": ("m", 1, good | {SIGNATURE: "[" * 100_000}),
        "is signed by key '.*', which is not trusted here": (
            *("m", 1),
            good | {SIGNATURE: sign_version(keys.signing_key(foreign), "m", 1, DIGEST, TAGS)},
        ),
        "has a signature that does not": (
            *("m", 1),
            good | {SIGNATURE: sign_promotion(key, "m", 1, 0, "")},
        ),
    }
    for reason, (name, number, tags) in wrong.items():
        with pytest.raises(DataError, match=f"{name} version {number} {reason}.*raypath models --sign {name} {number}"):
            check_version(name, number, tags, trusted)


def test_a_promotion_is_bound_to_its_version_reason_and_predecessor(signing: Path) -> None:
    key, trusted = keys.signing_key(signing), keys.trusted_keys(signing)
    good = {
        SIGNATURE: sign_version(key, "m", 2, DIGEST, {}),
        PROMOTION: sign_promotion(key, "m", 2, 1, "better"),
        REASON: "better",
        PREVIOUS_CHAMPION: "1",
    }
    assert check_version("m", 2, good, trusted, promoted=True) == DIGEST
    for change in ({PROMOTION: ""}, {REASON: "best"}, {PREVIOUS_CHAMPION: "7"}, {PREVIOUS_CHAMPION: "x"}):
        with pytest.raises(DataError):
            check_version("m", 2, good | change, trusted, promoted=True)
    other = good | {PROMOTION: sign_promotion(key, "m", 3, 1, "better")}
    with pytest.raises(DataError, match="has the promotion of another version"):
        check_version("m", 2, other, trusted, promoted=True)


def test_a_folder_is_exactly_what_was_signed(signing: Path, tmp_path: Path) -> None:
    trusted, folder = keys.trusted_keys(signing), tmp_path / "mlflow" / "artifacts" / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "mlflow" / "MLmodel").write_text("flavors")
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights").write_bytes(b"1")
    made = sign_folder(keys.signing_key(signing), tmp_path / "mlflow", "artifacts/model", "m", TAGS)
    assert (set(made.files), set(made.package)) == ({"config.json", "sub/weights"}, {"MLmodel"})
    assert read_manifest(folder, trusted) == made
    check_folder(folder, made)
    bundle = json.loads((folder / FILE).read_text())
    assert bundle["verificationMaterial"]["publicKey"]["hint"] == made.key
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    (folder / "sub" / FILE).write_text("{}")
    with pytest.raises(Untrusted, match=r"a file 'sub/signature\.json' that was not registered"):
        check_folder(folder, made)
    (folder / "sub" / FILE).unlink()
    (folder / FILE).write_text(json.dumps({"dsseEnvelope": json.loads(forged(json.dumps(bundle["dsseEnvelope"])))}))
    with pytest.raises(Untrusted, match="does not match"):
        read_manifest(folder, trusted)
