"""Writes weights and tokenizer as one GGUF file that llama.cpp runs as a Llama model."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from tokenizers import Tokenizer

from home_pair.model import CONTEXT, NORM_EPSILON, ROPE_BASE, Weights
from home_pair.recipes import Shape
from home_pair.tokenizer import END, SPECIALS, USER

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if loop.last %}<|user|>{{ m['content'] | trim | lower }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Shows the model the last turn only, in lower case: it never saw a capital or a conversation."""


def export(
    path: Path,
    name: str,
    shape: Shape,
    weights: Weights,
    tokenizer: Tokenizer,
    quantized: bool,
    facts: Mapping[str, str],
) -> None:
    """Writes matrices as Q8_0 or F16, norms as F32; rotary pairs are interleaved already, nothing is permuted.

    `facts` become keys `marginal.*`, which runtimes ignore and the model card reads.
    """
    kind = GGMLQuantizationType.Q8_0 if quantized else GGMLQuantizationType.F16
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama")
    writer.add_name(name)
    writer.add_license("Apache-2.0")
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0 if quantized else LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(shape.vocabulary)
    _add_tokenizer(writer, tokenizer)
    for key, fact in facts.items():
        writer.add_string(f"marginal.{key}", fact)
    for tensor, value in _tensors(weights):
        if value.ndim == 1:
            writer.add_tensor(tensor, value)
        elif quantized:
            writer.add_tensor(tensor, quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor, value.astype(np.float16), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t in SPECIALS else TokenType.NORMAL for t in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(USER)
    writer.add_eos_token_id(END)
    writer.add_eot_token_id(END)
    writer.add_pad_token_id(END)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensors(weights: Weights) -> list[tuple[str, np.ndarray]]:
    """Names the arrays as llama.cpp does; matrices become (out, in)."""
    named = [("token_embd.weight", weights["token_embd"]), ("output_norm.weight", weights["output_norm"])]
    for index, layer in enumerate(weights["layers"]):
        for part, value in layer.items():
            named.append((f"blk.{index}.{part}.weight", value.T if value.ndim == 2 else value))
    return [(name, np.ascontiguousarray(value, dtype=np.float32)) for name, value in named]
