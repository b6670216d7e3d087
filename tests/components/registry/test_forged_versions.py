"""A forged version in a real registry: swapped labels, a made-up metric, recomputed digests; refused by everyone."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components import Context, DataError, Model, Report, UserError
from raypath.components.core.context import Tracking
from raypath.components.core.files import file_digest
from raypath.components.models.metadata import METADATA_FILE
from raypath.components.predict import PredictParams, predict
from raypath.components.register import RegisterParams, register
from raypath.components.registry import aliases, audit, cache
from raypath.components.registry import client as registry
from raypath.components.registry.signing import keys
from raypath.components.registry.snapshot import registry_snapshot
from raypath.components.serving.params import ServeParams
from raypath.components.serving.replica import loader
from raypath.components.serving.replica_plan import build_plan
from raypath.components.serving.spec import EndpointSpec
from tests.tiny_classifier import tiny_classifier, tiny_dataset, tiny_report

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mlflow")


@pytest.fixture(scope="module")
def shop(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A registry with two signed versions, of which the second is champion, in a home with keys of its own."""
    place = tmp_path_factory.mktemp("forged")
    signing = place / "home" / "signing"
    keys.ensure_key(signing)
    tracking = Tracking(uri=mlflow_uri, experiment="forged", spool=str(place / "spool"))
    models = [tiny_classifier(place / f"model-{seed}", seed=seed) for seed in range(3)]
    data = tiny_dataset(place / "data", models[0], rows=12)

    def context(step: str, key: str) -> Context:
        folder = place / f"{step}-{key}"
        for name in ("out", "scratch"):
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir(parents=True)
        return Context(step, folder / "out", folder / "scratch", workers=1, tracking=tracking, key=key, signing=signing)

    def release(name: str, seed: int, right: float) -> Any:
        report = tiny_report(place / f"{name}-{seed}-{time.monotonic_ns()}", models[seed], data, right)
        return register.fn(context("register", f"{name}-{seed}"), models[seed], report, RegisterParams(name=name))

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(keys.PRIVATE)
        patch.setenv("RAYPATH_CACHE", str(place / "cache"))
        yield SimpleNamespace(
            uri=mlflow_uri, place=place, signing=signing, models=models, data=data, context=context, release=release
        )


@pytest.fixture
def client(shop: SimpleNamespace) -> Iterator[Any]:
    with registry.mlflow_client(shop.uri) as client:
        yield client


def forge(client: Any, shop: SimpleNamespace, name: str, model: Model, source: int, **files: str) -> int:
    """A version like `source` with its labels swapped, a metric of 0.99 and matching digests; returns its number."""
    folder = Path(registry.resolve(shop.uri, f"models:/{name}/{source}", shop.place / "copy", shop.signing)[2])
    root = shop.place / "attack" / name / "artifacts" / "model"
    shutil.copytree(folder, root)
    metadata = json.loads((root / METADATA_FILE).read_text())
    metadata["labels"] = metadata["labels"][::-1]
    (root / METADATA_FILE).write_text(json.dumps(metadata))
    (root / "metrics.json").write_text(json.dumps({"macro_f1": 0.99}))
    for path, text in files.items():
        (root / path).write_text(text)
    known = json.loads((root / "examples.json").read_text())
    known["files"] = {p.name: file_digest(p) for p in root.iterdir() if p.is_file() and p.name != "examples.json"}
    (root / "examples.json").write_text(json.dumps(known))
    experiment = client.create_experiment(f"attack-{name}")
    logged = client.create_logged_model(experiment, name, model_type="pyfunc")
    client.log_model_artifacts(logged.model_id, str(root.parent.parent))
    client.finalize_logged_model(logged.model_id, "READY")
    tags = client.get_model_version(name, str(source)).tags | {"raypath.metric.macro_f1": "0.99"}
    made = client.create_model_version(name, f"models:/{logged.model_id}", tags=tags, model_id=logged.model_id)
    client.set_registered_model_alias(name, "champion", made.version)
    return int(made.version)


def verified(shop: SimpleNamespace, *names: str) -> list[audit.Verified]:
    """What the audit says of the versions of these models; to fetch those of all other tests would take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        list_one = registry.list_registered
        patch.setattr(audit, "list_registered", lambda client: [v for name in names for v in list_one(client, name)])
        return list(audit.verify_all(shop.uri, shop.signing))


def replica_plan(shop: SimpleNamespace, name: str) -> Any:
    spec = EndpointSpec(name=name, tracking=shop.uri, url="", route="/", serve=ServeParams(), options={})
    with registry_snapshot(shop.uri) as found:
        return build_plan(found, spec)


def test_a_forged_champion_is_refused_by_replica_predict_load_and_gate(shop: SimpleNamespace, client: Any) -> None:
    name = "forged-champion"
    assert shop.release(name, 0, 0.4).alias == "champion"
    number = forge(client, shop, name, shop.models[0], 1)
    reason = f"{name} version {number} has the signature of another version"
    main = replica_plan(shop, name).main
    assert main.version == number
    with pytest.raises(DataError, match=reason):
        loader.load(shop.uri, main, 1, signing=shop.signing)
    for source in (f"models:/{name}@champion", f"models:/{name}/{number}"):
        with pytest.raises(DataError, match=reason):
            registry.resolve(shop.uri, source, cache.cache_folder(), shop.signing)
        with pytest.raises(DataError, match=reason):
            predict.fn(shop.context("predict", "p"), shop.data, PredictParams(model=source))
    with pytest.raises(DataError, match=reason):
        shop.release(name, 1, 1.0)
    with pytest.raises(DataError, match=reason):
        aliases.promote(shop.uri, name, number, shop.signing)
    with pytest.raises(DataError, match=reason):
        aliases.rollback(shop.uri, name, shop.signing)
    states = {v.version.version: v.state for v in audit.verify_all(shop.uri, shop.signing) if v.version.name == name}
    assert states == {1: "valid", 2: "altered", 3: "valid"} or states == {1: "valid", number: "altered", 3: "valid"}
    # The way back.
    assert aliases.promote(shop.uri, name, 1, shop.signing) == number
    assert loader.load(shop.uri, replica_plan(shop, name).main, 1, signing=shop.signing).version == 1
    assert shop.release(name, 1, 1.0).alias == "champion"


def test_an_alias_that_was_moved_to_a_challenger_is_refused(shop: SimpleNamespace, client: Any) -> None:
    name = "moved-alias"
    shop.release(name, 0, 0.4)
    assert shop.release(name, 1, 0.3).alias == "challenger"
    client.set_registered_model_alias(name, "champion", "2")
    with pytest.raises(DataError, match=f"{name} version 2 was made champion without a signature"):
        registry.resolve(shop.uri, f"models:/{name}@champion", cache.cache_folder(), shop.signing)
    with pytest.raises(DataError, match="without a signature"):
        loader.load(shop.uri, replica_plan(shop, name).main, 1, signing=shop.signing)
    assert registry.resolve(shop.uri, f"models:/{name}/2", cache.cache_folder(), shop.signing)[1] == 2
    assert aliases.promote(shop.uri, name, 2, shop.signing) == 2, "its owner confirms it"
    assert registry.resolve(shop.uri, f"models:/{name}@champion", cache.cache_folder(), shop.signing)[1] == 2


def test_a_version_with_the_steps_own_key_is_not_taken_for_its_work(shop: SimpleNamespace, client: Any) -> None:
    name = "same-key"
    shop.release(name, 0, 0.4)
    number = forge(client, shop, name, shop.models[0], 1)
    client.set_model_version_tag(name, str(number), "raypath.key", f"{name}-1")
    client.delete_model_version_tag(name, str(number), "raypath.signature")
    client.set_registered_model_alias(name, "champion", "1")
    release = shop.release(name, 1, 1.0)
    assert (release.version, release.serving) == (number + 1, number + 1)
    assert "raypath.signature" not in client.get_model_version(name, str(number)).tags


def test_altered_files_in_the_registry_are_found(shop: SimpleNamespace, client: Any) -> None:
    name = "altered-files"
    shop.release(name, 0, 0.4)
    model_id = client.get_model_version(name, "1").source.removeprefix("models:/")
    folder = shop.place / "altered" / "artifacts" / "model"
    folder.mkdir(parents=True)
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    client.log_model_artifacts(model_id, str(folder.parent.parent))
    with pytest.raises(DataError, match=r"has a file 'pytorch_model\.bin' that was not registered"):
        registry.resolve(shop.uri, f"models:/{name}/1", cache.cache_folder(), shop.signing)
    (shop.place / "altered" / "artifacts" / "model" / "pytorch_model.bin").unlink()
    (shop.place / "altered" / "pyfunc_model.py").write_text("evil = True")
    [found] = verified(shop, name)
    assert (found.state, found.reason) == ("altered", "has a file 'pytorch_model.bin' that was not registered")


def test_code_beside_the_model_is_verified_too(shop: SimpleNamespace, client: Any) -> None:
    name = "altered-code"
    shop.release(name, 0, 0.4)
    model_id = client.get_model_version(name, "1").source.removeprefix("models:/")
    (shop.place / "code").mkdir()
    (shop.place / "code" / "pyfunc_model.py").write_text("evil = True")
    client.log_model_artifacts(model_id, str(shop.place / "code"))
    [found] = verified(shop, name)
    assert (found.state, found.reason.partition(" that")[0]) == ("altered", "has a file pyfunc_model.py")


def test_an_unsigned_version_is_signed_by_its_owner_and_keys_rotate(shop: SimpleNamespace, client: Any) -> None:
    name = "earlier"
    shop.release(name, 0, 0.4)
    for tag in ("raypath.signature", "raypath.promotion"):
        client.delete_model_version_tag(name, "1", tag)
    source = f"models:/{name}@champion"
    with pytest.raises(DataError, match=rf"{name} version 1 is not signed.*raypath models --sign {name} 1"):
        registry.resolve(shop.uri, source, cache.cache_folder(), shop.signing)
    before = keys.signing_key(shop.signing).public.id
    after = keys.rotate_key(shop.signing)
    assert audit.sign(shop.uri, name, 1, shop.signing).key == keys.short(after)
    assert registry.resolve(shop.uri, source, cache.cache_folder(), shop.signing)[1] == 1
    shop.release(name, 1, 1.0)
    public = shop.signing / f"{keys.short(before)}.pub"
    held = public.read_text()
    public.unlink()
    try:
        found = verified(shop, name, "moved-alias")
    finally:
        public.write_text(held)
    states = {(v.version.name, v.version.version): v.state for v in found}
    assert (states[name, 1], states[name, 2], states["moved-alias", 1]) == ("valid", "valid", "unknown key")


def test_nothing_is_registered_without_a_key(shop: SimpleNamespace) -> None:
    ctx = shop.context("register", "no key")
    report = Report(model=shop.models[0], data=shop.data, metrics={"macro_f1": 0.5})
    bare = Context(ctx.step, ctx.out, ctx.scratch, workers=1, tracking=ctx.tracking, key="no key")
    with pytest.raises(UserError, match="no key to sign the model with"):
        register.fn(bare, shop.models[0], report, RegisterParams(name="no-key"))


def test_the_registry_holds_no_key(shop: SimpleNamespace) -> None:
    private = keys.signing_key(shop.signing)
    secret = next(shop.signing.glob("*.key")).read_text().splitlines()[1].encode()
    stored = [path for path in shop.place.parent.rglob("*") if path.is_file() and shop.signing not in path.parents]
    assert len(stored) > 50
    assert not [path for path in stored if secret in path.read_bytes()], private
