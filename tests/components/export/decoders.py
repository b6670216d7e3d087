"""Tiny decoders with tokenizers of their own, made on the spot: what a GGUF file is written of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SENTENCES = [
    "The lovely cup of tea arrived early, and it was still hot.",
    "We're sorry: 3 boxes of 12 cups were broken in 2026!",
    "Grüße aus München, naïve café, 一杯好茶, привет, 🍵",
    "def f(x):\n    return x * 100\n\n\n  indented",
]
TEXTS = [
    "a lovely cup",
    "it's 2026 and 12 cups\n\n",
    " two  spaces",
    "Grüße 一杯好茶 🍵",
    "<|im_start|>user\nhi<|im_end|>",
]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROWS = 360
"""Rows of the embedding: more than the tokenizer has tokens, as real models have."""


def byte_level(pre: str = "gpt-2") -> Any:
    """A byte-level BPE tokenizer with ChatML's special tokens and one that is added and not special."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from raypath.components.export.gguf.pre_tokenizer import SPLITS

    found = Tokenizer(models.BPE())
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if pre == "smollm":
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    elif pre != "gpt-2":
        regex = next(regex for regex, name in SPLITS.items() if name == pre)
        split = pre_tokenizers.Split(Regex(regex), "isolated")
        steps = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    found.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    found.train_from_iterator(SENTENCES, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=found, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    made.chat_template = CHATML
    return made


def sentencepiece() -> Any:
    """A BPE tokenizer as Llama 2 and Mistral have it: spaces are tokens' own characters, unknown ones are bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    found = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    found.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    found.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    found.train_from_iterator(SENTENCES[:2], trainer)
    found.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=found, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def decoder(folder: Path, kind: str = "llama", dtype: str = "float32", tokenizer: Any = None, **more: Any) -> Path:
    """A decoder of 2 layers, 64 wide, with grouped-query attention and random weights, as `save_pretrained` leaves it.

    kind: model type of transformers. dtype: whose values the weights have, whatever they are stored in.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": ROWS}
    # transformers' reader has fixed widths for some, whatever the file says.
    width = 128 if kind == "qwen3" else 256 if kind.startswith("gemma") else 16
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": width}
    if kind == "qwen2":
        del shape["head_dim"]
    shape |= {"max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **more}
    config = transformers.AutoConfig.for_model(kind, **shape)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 0.2 if "norm" in name or "bias" in name else 0.08
            weight.copy_((weight + torch.randn_like(weight) * scale).to(getattr(torch, dtype)))
    model.save_pretrained(folder)
    (tokenizer or byte_level()).save_pretrained(folder)
    return folder


def logits(model: Any) -> Any:
    """Logits float32 [1, 24, rows of the embedding] of token ids that are always the same."""
    import torch

    ids = torch.arange(24)[None] * 13 % 300 + 3
    with torch.inference_mode():
        return model.eval()(input_ids=ids).logits.float()
