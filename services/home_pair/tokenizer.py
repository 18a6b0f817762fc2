"""Trains the byte-level BPE tokenizer both models share, and lays out one example as token ids."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from tokenizers.trainers import BpeTrainer

from home_pair.requests import Example, draw

END, USER, ASSISTANT = 0, 1, 2
SPECIALS = ("<|end|>", "<|user|>", "<|assistant|>")
VOCABULARY = 1024
SAMPLE = 60_000


def new_tokenizer(model: BPE) -> Tokenizer:
    """Wraps a BPE model the way the pre-tokenizer `smollm` of llama.cpp does: single digits, then bytes."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer


def train_tokenizer(seed: int) -> Tokenizer:
    """Learns 1,024 tokens, 256 bytes and 3 control tokens among them, from 60,000 training examples."""
    tokenizer = new_tokenizer(BPE())
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(islice(draw("train", seed), SAMPLE)), trainer)
    return tokenizer


def _texts(examples: Iterator[Example]) -> Iterator[str]:
    for example in examples:
        yield example.request
        yield example.answer


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer that `train_tokenizer` made and `save` wrote."""
    return Tokenizer.from_file(str(path))


def prompt_ids(tokenizer: Tokenizer, request: str) -> list[int]:
    """Lays out a request as the chat template does: user, request, assistant."""
    return [USER, *tokenizer.encode(request, add_special_tokens=False).ids, ASSISTANT]


def answer_ids(tokenizer: Tokenizer, answer: str) -> list[int]:
    """Lays out an answer and the end token."""
    return [*tokenizer.encode(answer, add_special_tokens=False).ids, END]
