"""Fine-tuning: one worker and two give the same curve, settings are put in, mistakes are named."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.core.artifacts import Dataset, Settings
from raypath.components.core.context import Context, NoTracker, Tracking
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.models.metadata import read_metadata
from tests.tiny import LABELS, tiny_bert, tiny_gpt2
from tests.tiny_decoders import decoder_folder, write_answers

NOTHING = Settings(values={}, metric="log_loss", score=0.0, trials=0)
SPLITS = (("train", 160), ("valid", 40))
"""Names and rows of the splits of a decoder."""


class Notes(NoTracker):
    """Keeps what a step notes."""

    def __init__(self) -> None:
        self.points: dict[str, dict[int, float]] = {}

    def metrics(self, values: Any, step: int = 0) -> None:
        for key, value in values.items():
            self.points.setdefault(key, {})[step] = value


def _params(base: Path, **changes: Any) -> ResolvedParams:
    plain = {"base": str(base), "epochs": 1, "lr": 1e-3, "batch_tokens": 256, "metric": "accuracy", "threads": 1}
    return ResolvedParams().override(plain | changes)


def test_one_worker_makes_a_folder_that_transformers_opens(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Any, ray_head: None
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    notes = Notes()
    ctx: Context = make_context("finetune", track=notes)
    best = Settings(values={"lr": 2e-3}, metric="log_loss", score=-0.5, trials=3)
    model = finetune.fn(ctx, *parts, best, _params(base))
    assert model.labels == LABELS
    assert read_metadata(ctx.out).max_length == 64
    opened = AutoModelForSequenceClassification.from_pretrained(ctx.out)
    assert opened.config.id2label == {0: "other", 1: "great"}
    assert AutoTokenizer.from_pretrained(ctx.out)("great")["input_ids"]
    assert not list(ctx.out.rglob("*.bin")) + list(ctx.out.rglob("*.pkl"))
    steps = list(notes.points["train/loss"])
    assert steps == list(range(1, len(steps) + 1))
    warm = round(0.1 * len(steps))
    course = np.interp(steps, [0, warm, len(steps) + 1], [0, 2e-3, 0])
    assert list(notes.points["train/lr"].values()) == pytest.approx(course), "what tune found replaces the setting"


def test_the_figures_are_those_of_the_chosen_threshold(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Any, ray_head: None
) -> None:
    from raypath.components.evaluate import EvaluateParams, evaluate

    ctx: Context = make_context("finetune")
    threshold = {"objective.threshold": "valid", "objective.class_weights": "balanced", "epochs": 2}
    model = finetune.fn(ctx, *parts, NOTHING, _params(base, **threshold)).finalized(str(ctx.out), "")
    assert len(read_metadata(ctx.out).thresholds) == 1
    report = evaluate.fn(make_context("evaluate"), model, parts[1], EvaluateParams(resamples=0, plots=False))
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert model.metrics[name] == pytest.approx(report.metrics[name], abs=1e-6)


@pytest.mark.slow
def test_an_elastic_group_takes_both_cores_and_gives_the_curve_of_one_worker(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Any, ray_head: None, tmp_path: Path
) -> None:
    """Same global batch: 2 x 256 tokens against 1 x 512. Differences come from the order of sums alone."""
    spool = tmp_path / "spool"
    two = make_context("finetune", tracking=Tracking(experiment="e", parent="p", spool=str(spool)))
    finetune.fn(two, *parts, NOTHING, _params(base, workers=1, max_workers=2, batch_tokens=512))
    notes = Notes()
    one = make_context("finetune", track=notes)
    finetune.fn(one, *parts, NOTHING, _params(base, batch_tokens=512))
    events = [json.loads(line) for path in spool.glob("*.jsonl") for line in path.read_text().splitlines()]
    values = [event["values"] for event in events if "values" in event]
    assert [each["run.world_size"] for each in values if "run.world_size" in each] == ["2"]
    apart = {e["step"]: e["values"]["train/loss"] for e in events if "train/loss" in e.get("values", {})}
    assert apart.keys() == notes.points["train/loss"].keys()
    for step, loss in notes.points["train/loss"].items():
        assert apart[step] == pytest.approx(loss, abs=1e-3)


@pytest.mark.slow
def test_an_error_of_the_users_ends_a_group_at_once(
    parts: tuple[Dataset, Dataset], make_context: Any, tmp_path: Path, ray_head: None
) -> None:
    """A base with weights that are no numbers: the first step fails, and would in any other group of workers."""
    from safetensors.torch import load_file, save_file

    broken = tiny_bert(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    spool = tmp_path / "spool"
    ctx = make_context("finetune", tracking=Tracking(experiment="e", parent="p", spool=str(spool)))
    with pytest.raises(DataError, match="loss is NaN at epoch 1, step 1") as caught:
        finetune.fn(ctx, *parts, NOTHING, _params(broken, workers=2))
    assert type(caught.value) is DataError
    lines = [line for path in spool.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert sum("run.world_size" in line for line in lines) == 1, "one group was started"


def _train_workers(scratch: Path) -> list[Any]:
    """Return the processes of Ray Train's workers, once a training has its first checkpoint."""
    import psutil

    def title(process: psutil.Process) -> str:
        with contextlib.suppress(psutil.Error):  # one that has just ended
            return " ".join(process.cmdline())
        return ""

    while not list((scratch / "last").glob("step-*")):
        time.sleep(0.01)
    return [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in title(p)]


@pytest.mark.slow
def test_a_worker_that_dies_is_followed_by_a_group_that_goes_on(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Any, tmp_path: Path, ray_head: None
) -> None:
    """Workers of one machine open no port to others, besides the one that each process of Ray opens."""
    import psutil
    import ray

    ctx = make_context("finetune", tracking=Tracking(experiment="e", parent="p", spool=str(tmp_path / "spool")))
    ports: list[int] = []

    def open_ports(process: psutil.Process) -> int:
        listening = [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
        return sum(each.laddr.ip in ("0.0.0.0", "::") for each in listening)

    def kill() -> None:
        workers = _train_workers(ctx.scratch)
        ports.extend(map(open_ports, workers))
        workers[0].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    params = _params(base, workers=2, epochs=8, patience=0, checkpoint_seconds=0.0)
    model = finetune.fn(ctx, *parts, NOTHING, params)
    thread.join()
    assert ports == [ray.get(ray.remote(num_cpus=0)(lambda: open_ports(psutil.Process())).remote())] * 2
    assert model.metrics["accuracy"] > 0.7
    lines = [line for path in (tmp_path / "spool").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert sum("run.world_size" in line for line in lines) == 2


@pytest.mark.slow
def test_adapters_of_two_workers_of_which_one_is_killed_have_the_bits_of_an_unbroken_training(
    make_context: Any, tmp_path: Path, ray_head: None
) -> None:
    base = decoder_folder(tmp_path / "base")
    splits = [write_answers(tmp_path / name, base, count, seed) for seed, (name, count) in enumerate(SPLITS)]
    params = ResolvedParams().override(
        {
            **{"task": "text_generation", "base": str(base), "lora": 4, "lora_dropout": 0.1, "lr": 1e-2},
            **{"epochs": 4, "batch_tokens": 256, "frozen_layers": -1, "workers": 2, "threads": 1},
            "checkpoint_seconds": 0.0,
        }
    )

    def trained(name: str, kill: Callable[[Path], None] | None) -> tuple[Path, dict[str, float], int]:
        """Train; returns the adapters' folder, the metrics, and the number of worker groups."""
        spool = tmp_path / name
        ctx = make_context("finetune", tracking=Tracking(experiment="e", parent="p", spool=str(spool)))
        thread = threading.Thread(target=kill or (lambda _: None), args=(ctx.scratch,))
        thread.start()
        model = finetune.fn(ctx, *splits, NOTHING, params)
        thread.join()
        lines = [line for path in spool.glob("*.jsonl") for line in path.read_text().splitlines()]
        return ctx.out, dict(model.metrics), sum("run.world_size" in line for line in lines)

    whole, wanted, groups = trained("whole", None)
    assert groups == 1
    cut, found, groups = trained("cut", lambda scratch: _train_workers(scratch)[-1].kill())
    assert groups == 2
    assert found == wanted
    files = {path.name: path.read_bytes() for path in whole.glob("*.safetensors")}
    assert files
    assert {path.name: path.read_bytes() for path in cut.glob("*.safetensors")} == files


def test_mistakes_are_named(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Any, tmp_path: Path, ray_head: None
) -> None:
    train, valid = parts

    def run(params: ResolvedParams, data: Dataset = train) -> None:
        finetune.fn(make_context("finetune"), data, valid, NOTHING, params)

    with pytest.raises(DataError, match=r"is not a folder; wanted a folder with config\.json"):
        run(_params(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"lacks a config\.json with a model_type, \*\.safetensors, a tokenizer"):
        run(_params(tmp_path))
    with pytest.raises(DataError, match="tokenized with another tokenizer"):
        run(_params(base), train.model_copy(update={"tokenizer": "0" * 64}))
    with pytest.raises(DataError, match=r"the train split has no rows"):
        run(_params(base), train.model_copy(update={"rows": 0}))
    with pytest.raises(ParamsError, match=r"finetune\.workers=64, but Ray has 2 CPUs"):
        run(_params(base, workers=64))
    other = tiny_bert(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "distilbert", "architectures": None}))
    with pytest.raises(DataError, match=r"weights of a distilbert encoder are missing"):
        run(_params(other))
    with pytest.raises(ParamsError, match="unknown task poetry"):
        run(_params(base, task="poetry"))
    broken = tmp_path / "broken"
    tiny_bert(broken)
    with open(broken / "model.safetensors", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match="does not open"):
        run(_params(broken))


def test_a_decoder_without_a_padding_token_pads_with_its_end(
    parts: tuple[Dataset, Dataset], make_context: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    decoder = tiny_gpt2(tmp_path / "decoder", eos_token_id=102)
    ctx: Context = make_context("finetune")
    model = finetune.fn(ctx, *parts, NOTHING, _params(decoder, epochs=3))
    assert model.metrics["accuracy"] > 0.6
    assert AutoModelForSequenceClassification.from_pretrained(ctx.out).config.pad_token_id == 102
    with pytest.raises(DataError, match="neither a padding token nor an end-of-text token; set pad_token_id"):
        finetune.fn(make_context("finetune"), *parts, NOTHING, _params(tiny_gpt2(tmp_path / "bare")))


def test_the_validation_part_is_checked_before_the_first_step(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Any, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(Path(parts[1].uri) / "part-0.parquet")
    strange = {
        "have token 40000, but the model's vocabulary has 30522 tokens": (
            "input_ids",
            pa.array([[40_000]] * len(table)),
        ),
        "a row of valid has 200 tokens; the model takes 128": ("input_ids", pa.array([[1] * 200] * len(table))),
        "targets of valid go from 7 to 7; wanted 0 to 1": ("target", pa.array([7] * len(table), pa.int32())),
    }
    for said, (name, column) in strange.items():
        pq.write_table(table.set_column(table.schema.get_field_index(name), name, column), tmp_path / "0.parquet")
        notes = Notes()
        with pytest.raises(DataError, match=said):
            finetune.fn(
                make_context("finetune", track=notes),
                parts[0],
                parts[1].model_copy(update={"uri": str(tmp_path)}),
                NOTHING,
                _params(base),
            )
        assert "train/loss" not in notes.points
