"""Tiny T5, BART and Marian with a tokenizer of bytes: encoder-decoders with random weights, in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL = ("<pad>", "</s>", "<s>")
KINDS = ("t5", "bart", "marian")


def seq2seq_tokenizer() -> Any:
    """Three special tokens and 256 of a byte each; `</s>` ends a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: n for n, token in enumerate([*SPECIAL, *alphabet])}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="<pad>", bos_token="<s>")


def seq2seq_model(kind: str = "t5", seed: int = 0, **more: Any) -> Any:
    """An encoder-decoder with random weights, large enough for targets that differ."""
    import torch
    import transformers

    torch.manual_seed(seed)
    common: dict[str, Any] = {"vocab_size": 256 + len(SPECIAL), "d_model": 32}
    common |= {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    if kind == "t5":
        shape: dict[str, Any] = {"d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
        config = transformers.T5Config(**(common | shape | more))
        return transformers.T5ForConditionalGeneration(config).eval()
    shape = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    shape |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 96, "init_std": 0.2}
    common |= {"dropout": 0.0, "forced_eos_token_id": None}
    if kind == "bart":
        made = transformers.BartForConditionalGeneration(transformers.BartConfig(**(common | shape | more)))
    else:
        made = transformers.MarianMTModel(transformers.MarianConfig(**(common | shape | more)))
    made.final_logits_bias.normal_(std=0.5)
    return made.eval()


def seq2seq_folder(folder: Path, kind: str = "t5", seed: int = 0, **more: Any) -> Path:
    """The model and its tokenizer in a folder."""
    seq2seq_model(kind, seed, **more).save_pretrained(folder)
    seq2seq_tokenizer().save_pretrained(folder)
    return folder
