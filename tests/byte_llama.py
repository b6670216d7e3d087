"""A real but tiny Llama with a byte-level tokenizer and ChatML's template: what language models train from."""

from pathlib import Path
from typing import Any

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MERGES = (("h", "e"), ("l", "l"), ("Ġ", "he"))


def byte_tokens() -> list[str]:
    """Special tokens, all bytes as GPT-2 writes them, and three merges."""
    from tokenizers.pre_tokenizers import ByteLevel

    return [*SPECIAL, *sorted(ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]


def tiny_llama_config(**more: Any) -> Any:
    """2 layers, 64 wide, 4 heads that share 2 groups of keys, tied embeddings."""
    from transformers import LlamaConfig

    shape = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "max_position_embeddings": 256}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    return LlamaConfig(vocab_size=len(byte_tokens()), **{**shape, **heads, **special, **more})


def tiny_chat(folder: Path, **more: Any) -> Path:
    """Save a Llama with random weights, its tokenizer and template as a base model."""
    import torch
    from transformers import LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    LlamaForCausalLM(tiny_llama_config(**more)).save_pretrained(folder)
    save_byte_tokenizer(folder)
    return folder


def save_byte_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    from transformers import PreTrainedTokenizerFast

    from raypath.components.models.conversion.byte_level import build_tokenizer

    names = byte_tokens()
    types = [3] * len(SPECIAL) + [1] * (len(names) - len(SPECIAL))
    values = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in MERGES],
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(values.get),
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[2],
        unk_token=SPECIAL[0],
        model_max_length=256,
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
