"""Compares the runtime with the training code on a shipped file: token ids and greedy answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import Tokenizer
from tokenizers.models import BPE

from home_pair.model import Weights, logits
from home_pair.recipes import Shape
from home_pair.requests import Example
from home_pair.runtime import Runtime
from home_pair.tokenizer import END, new_tokenizer, prompt_ids

_LENGTH = 96


@dataclass(frozen=True, slots=True)
class Parity:
    """How many of `asked` requests the runtime tokenizes and answers as the training code does."""

    asked: int
    same_tokens: int
    same_answers: int


def compare(path: Path, examples: list[Example]) -> Parity:
    """Asks both the same requests; a tie between two tokens may fall either way after rounding."""
    shape, weights, tokenizer = read_back(path)
    runtime = Runtime(path)
    prompts = [prompt_ids(tokenizer, example.request) for example in examples]
    same_tokens = sum(
        runtime.token_ids(example.request) == prompt[1:-1] for example, prompt in zip(examples, prompts, strict=True)
    )
    ours = [tokenizer.decode(ids) for ids in greedy(shape, weights, prompts)]
    same_answers = sum(runtime.answer(e.request).text == text for e, text in zip(examples, ours, strict=True))
    return Parity(len(examples), same_tokens, same_answers)


def read_back(path: Path) -> tuple[Shape, Weights, Tokenizer]:
    """Rebuilds the shape, the weights as float32 and the tokenizer from a GGUF file."""
    reader = GGUFReader(path)
    keys: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
    shape = Shape(
        width=keys["llama.embedding_length"],
        layers=keys["llama.block_count"],
        heads=keys["llama.attention.head_count"],
        hidden=keys["llama.feed_forward_length"],
        vocabulary=keys["llama.vocab_size"],
    )
    layers: list[dict[str, np.ndarray]] = [{} for _ in range(shape.layers)]
    weights: Weights = {"layers": layers}
    for tensor in reader.tensors:
        value = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        part = tensor.name.removesuffix(".weight")
        if part.startswith("blk."):
            _, index, part = part.split(".")
            layers[int(index)][part] = value.T if value.ndim == 2 else value
        else:
            weights[part] = value
    tokens = {token: index for index, token in enumerate(keys["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in keys["tokenizer.ggml.merges"]]
    return shape, weights, new_tokenizer(BPE(vocab=tokens, merges=merges))


def greedy(shape: Shape, weights: Weights, prompts: list[list[int]]) -> list[list[int]]:
    """Continues every prompt with the likeliest tokens until the end token."""
    tokens = np.zeros((len(prompts), _LENGTH), np.int32)
    ends = np.array([len(prompt) for prompt in prompts])
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    placed = jax.tree.map(jnp.asarray, weights)
    score = jax.jit(lambda ids: logits(placed, ids, jnp.zeros_like(ids), shape.heads))
    going = np.ones(len(prompts), bool)
    rows = np.arange(len(prompts))
    while going.any() and ends.max() < _LENGTH:
        best = np.asarray(score(tokens)).reshape(len(prompts), _LENGTH, -1)[rows, ends - 1].argmax(axis=-1)
        tokens[rows[going], ends[going]] = best[going]
        going &= best != END
        ends = np.minimum(ends + going, _LENGTH - 1)
    return [list(map(int, row[len(p) : end])) for row, p, end in zip(tokens, prompts, ends, strict=True)]
