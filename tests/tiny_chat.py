"""A tiny Llama with a tokenizer of bytes and ChatML's template: a language model, in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_tokenizer() -> Any:
    """256 tokens of a byte each, and three special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: n for n, token in enumerate([*alphabet, *SPECIAL])}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=SPECIAL[2], pad_token=SPECIAL[0], chat_template=TEMPLATE
    )


def chat_model(seed: int = 0, context: int = 256, **more: Any) -> Any:
    """A Llama with random weights, large enough for answers that differ."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": context}
    shape |= {"vocab_size": 256 + len(SPECIAL), "bos_token_id": None, "eos_token_id": 258, "pad_token_id": 256}
    return LlamaForCausalLM(LlamaConfig(**(shape | {"initializer_range": 0.4} | more))).eval()


def chat_folder(folder: Path, seed: int = 0, **more: Any) -> Path:
    """The model and its tokenizer in a folder."""
    chat_model(seed, **more).save_pretrained(folder)
    chat_tokenizer().save_pretrained(folder)
    return folder
