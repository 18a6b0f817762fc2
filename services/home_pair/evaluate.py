"""Grades both models on the held-out requests through the llama.cpp runtime, by exact match."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from home_pair import figures
from home_pair.elsewhere import ANSWER
from home_pair.requests import Example, held_out
from home_pair.runtime import Reply, Runtime
from home_pair.strangers import STRANGERS

MODELS = Path(__file__).resolve().parent.parent / "marginal" / "models"
QUESTIONS_SEED = 2026
QUESTIONS = 1000

SCORES: dict[str, Callable[[Reply], float]] = {
    "minimum": lambda reply: reply.least(),
    "first four": lambda reply: reply.least(4),
    "first": lambda reply: reply.least(1),
    "mean": lambda reply: reply.mean(),
}


@dataclass(frozen=True, slots=True)
class Graded:
    """One request and what a model made of it."""

    example: Example
    reply: Reply

    @property
    def right(self) -> bool:
        """Tells whether the text is the answer, to the letter."""
        return self.reply.finished and self.reply.text == self.example.answer


def model_file(models: Path, tier: str) -> Path:
    """Names the file of a tier, `small` or `large`."""
    return models / f"home-{tier}.gguf"


def questions_file(models: Path) -> Path:
    """Names the file of the held-out requests."""
    return models / "home-questions.jsonl"


def write_questions(path: Path, count: int = QUESTIONS) -> None:
    """Writes the held-out requests, one JSON object a line."""
    seen: dict[str, int] = {}
    with path.open("w", encoding="ascii") as file:
        for example in held_out("test", QUESTIONS_SEED, count):
            seen[example.task] = seen.get(example.task, 0) + 1
            file.write(json.dumps({"id": f"{example.task}-{seen[example.task]:04d}", **asdict(example)}) + "\n")


def read_questions(path: Path) -> list[Example]:
    """Reads the held-out requests."""
    lines = map(json.loads, path.read_text(encoding="ascii").splitlines())
    return [Example(line["task"], line["request"], line["answer"]) for line in lines]


def grade(runtime: Runtime, examples: Iterable[Example]) -> Iterator[Graded]:
    """Asks every request once, in order."""
    for example in examples:
        yield Graded(example, runtime.answer(example.request))


def evaluate(models: Path) -> dict[str, Any]:
    """Gives every figure of the card as plain data."""
    examples = read_questions(questions_file(models))
    graded: dict[str, list[Graded]] = {}
    report: dict[str, Any] = {"questions": len(examples)}
    for tier in ("small", "large"):
        path = model_file(models, tier)
        runtime = Runtime(path)
        graded[tier] = list(grade(runtime, examples))
        strangers = list(grade(runtime, (Example("unknown", request, ANSWER) for request in STRANGERS)))
        report[tier] = {
            "bytes": path.stat().st_size,
            **_quality(graded[tier]),
            "strangers": _strangers(strangers),
        }
    small, large = ([g.right for g in graded[tier]] for tier in ("small", "large"))
    report["small right, large wrong"] = sum(a and not b for a, b in zip(small, large, strict=True)) / len(small)
    report["deferral"] = {
        name: figures.deferral([score(g.reply) for g in graded["small"]], small, large)
        for name, score in SCORES.items()
    }
    return report


def _quality(graded: Sequence[Graded]) -> dict[str, Any]:
    right = [g.right for g in graded]
    tasks: dict[str, list[bool]] = {}
    for g in graded:
        tasks.setdefault(g.example.task, []).append(g.right)
    return {
        "accuracy": sum(right) / len(right),
        "interval": figures.interval(sum(right), len(right)),
        "tasks": {task: {"n": len(good), "accuracy": sum(good) / len(good)} for task, good in sorted(tasks.items())},
        "auroc": {name: figures.auroc([s(g.reply) for g in graded], right) for name, s in SCORES.items()},
        "deciles": figures.deciles([g.reply.least() for g in graded], right),
    }


def _strangers(graded: Sequence[Graded]) -> dict[str, Any]:
    astray = [g for g in graded if not g.right]
    return {
        "n": len(graded),
        "unknown": sum(g.right for g in graded) / len(graded),
        "median minimum margin": median(g.reply.least() for g in graded),
        "astray": {g.example.request: [g.reply.text, round(g.reply.least(), 3)] for g in astray},
    }
