"""Packs fresh examples into rows of fixed length, so that one compiled step serves the whole training."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Full, Queue

import numpy as np
from tokenizers import Tokenizer

from home_pair.requests import TRAINING_MIX, Example, draw
from home_pair.tokenizer import answer_ids, prompt_ids

ROW = 96


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrays of shape (rows, 96): ids, the ids that follow, the weight of each guess, the example it belongs to."""

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    segments: np.ndarray
    examples: int


def batches(tokenizer: Tokenizer, seed: int, rows: int, request_weight: float) -> Iterator[Batch]:
    """Packs the training mix without end, first fit; weights add up to 1 over the answer tokens."""
    carried: tuple[list[int], list[int]] | None = None
    examples = draw("train", seed, TRAINING_MIX)
    while True:
        tokens = np.zeros((rows, ROW), np.int32)
        targets = np.zeros((rows, ROW), np.int32)
        weights = np.zeros((rows, ROW), np.float32)
        segments = np.zeros((rows, ROW), np.int32)
        used = [0] * rows
        count = 0
        while True:
            prompt, answer = carried or _laid_out(tokenizer, next(examples))
            whole = prompt + answer
            length = len(whole) - 1
            row = next((r for r in range(rows) if used[r] + length <= ROW), None)
            if row is None:
                carried = (prompt, answer)
                break
            carried = None
            count += 1
            at = slice(used[row], used[row] + length)
            tokens[row, at], targets[row, at], segments[row, at] = whole[:-1], whole[1:], count
            weights[row, at] = [request_weight] * (len(prompt) - 1) + [1.0] * len(answer)
            used[row] += length
        answers = float((weights == 1.0).sum())
        yield Batch(tokens, targets, weights / answers, segments, count)


def _laid_out(tokenizer: Tokenizer, example: Example) -> tuple[list[int], list[int]]:
    return prompt_ids(tokenizer, example.request), answer_ids(tokenizer, example.answer)


def prefetched(source: Iterator[Batch], depth: int = 8) -> Iterator[Batch]:
    """Prepares batches in a thread while the step computes."""
    queue: Queue[Batch] = Queue(depth)
    stopped = threading.Event()

    def fill() -> None:
        for batch in source:
            while not stopped.is_set():
                try:
                    queue.put(batch, timeout=0.2)
                    break
                except Full:
                    continue
            if stopped.is_set():
                return

    threading.Thread(target=fill, daemon=True).start()
    try:
        while True:
            yield queue.get()
    finally:
        stopped.set()
