"""The check of a model's files by the code that is stored with a version, which runs without Raypath."""

from pathlib import Path

import pytest

from raypath.components.registry.signing import keys
from raypath.components.registry.signing.manifest import FILE, sign_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A signed model folder and the folder of the key that signed it."""
    monkeypatch.delenv(keys.PRIVATE, raising=False)
    model, signing = tmp_path / "model", tmp_path / "signing"
    (model / "openvino").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "openvino" / "model.weights").write_bytes(b"weights")
    keys.ensure_key(signing)
    sign_folder(keys.signing_key(signing), model, "", "topics", {})
    return model, signing


def test_exactly_the_signed_files_open(signed: tuple[Path, Path], tmp_path: Path) -> None:
    from raypath.components.registry.flavors.pyfunc_model import _check_signature

    model, signing = signed
    [public] = signing.glob("*.pub")
    other = tmp_path / "other"
    keys.ensure_key(other)
    for given in (str(signing), str(public), public.read_text(), "".join(p.read_text() for p in _all(other, signing))):
        _check_signature(model, given)
    with pytest.raises(ValueError, match="is not signed by a key in RAYPATH_PUBLIC_KEYS"):
        _check_signature(model, str(other))
    for name, content, back in (("config.json", "{} ", "{}"), ("openvino/added.bin", "", None)):
        (model / name).write_text(content)
        with pytest.raises(ValueError, match=name):
            _check_signature(model, str(signing))
        (model / name).unlink() if back is None else (model / name).write_text(back)
    _check_signature(model, str(signing))
    (model / "openvino" / "model.weights").unlink()
    with pytest.raises(ValueError, match=r"model\.weights"):
        _check_signature(model, str(signing))
    (model / FILE).unlink()
    with pytest.raises(ValueError, match="is not signed; RAYPATH_PUBLIC_KEYS is set"):
        _check_signature(model, str(signing))


def _all(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.glob("*.pub")]


def test_a_folder_is_signed_anew_whatever_its_signature_was(signed: tuple[Path, Path], tmp_path: Path) -> None:
    model, signing = signed
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("{}")
    (model / FILE).unlink()
    (model / FILE).symlink_to(elsewhere)
    key = keys.signing_key(signing)
    made = sign_folder(key, model, "", "topics", {"a": "b"})
    assert (made.tags, sorted(made.files)) == ({"a": "b"}, ["config.json", "openvino/model.weights"])
    assert not (model / FILE).is_symlink()
    assert elsewhere.read_text() == "{}"
