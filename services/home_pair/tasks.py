"""What a task is: facts, the patterns that ask for them, and the split that keeps some of both from training."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from home_pair import phrasing

Split = Literal["train", "dev", "test"]

HELD_OUT_PATTERN_SHARE = 0.2
TYPO_SHARE = 0.12


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to ask: a number in `slots` is said in digits or words, `clock` numbers as a time of day."""

    form: str
    slots: Mapping[str, int | str]
    answer: str


@dataclass(frozen=True)
class Task:
    """A skill: `split_by` names what is held out, the fact itself or the fact together with its wording."""

    name: str
    draw_fact: Callable[[Random], Fact]
    patterns: Mapping[str, tuple[str, ...]]
    split_by: Literal["fact", "wording"] = "fact"
    is_question: bool = False
    politeness: float = 1.0
    by_split: dict[tuple[str, Split], tuple[str, ...]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for form, patterns in self.patterns.items():
            taught = {word for p in patterns if split_of_pattern(self.name, p) == "train" for word in words_of(p)}
            for split in ("train", "dev", "test"):
                self.by_split[form, split] = tuple(
                    p
                    for p in patterns
                    if split == (split_of_pattern(self.name, p) if words_of(p) <= taught else "train")
                )
            if not self.by_split[form, "train"]:
                raise ValueError(f"{self.name}/{form} has no training pattern")

    def draw(self, split: Split, rng: Random) -> tuple[str, str]:
        """Draws one request of a split and its answer."""
        fact, wording, said = self.draw_clause(split, rng)
        if rng.random() < TYPO_SHARE:
            wording = phrasing.mistyped(wording, rng)
        body = phrasing.tidy(wording.format_map(said))
        if rng.random() < self.politeness:
            body = phrasing.polite(body, self.is_question, rng)
        return body, fact.answer

    def draw_clause(self, split: Split, rng: Random) -> tuple[Fact, str, dict[str, str]]:
        """Draws a fact of a split, a wording with its slots open, and what to say in the slots."""
        unseen_pattern = split != "train" and rng.random() < HELD_OUT_PATTERN_SHARE
        while True:
            fact = self.draw_fact(rng)
            if self.split_by == "fact" and split_of(_key(self.name, fact)) != split:
                continue
            patterns = self.by_split[fact.form, split] if unseen_pattern else ()
            pattern = rng.choice(patterns or self.by_split[fact.form, "train"])
            wording = phrasing.choose(pattern, rng)
            said = {name: _say(name, value, rng) for name, value in fact.slots.items()}
            if self.split_by == "fact" or split_of(phrasing.tidy(wording.format_map(said))) == split:
                return fact, wording, said


def _key(task: str, fact: Fact) -> str:
    return f"{task}|{fact.form}|" + "|".join(f"{name}={value}" for name, value in fact.slots.items())


def _say(name: str, value: int | str, rng: Random) -> str:
    if isinstance(value, str):
        return value
    return phrasing.clock(value, rng) if name == "clock" else phrasing.spoken(value, rng)


def _bucket(key: str) -> int:
    return int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest()[:4]) % 100


def split_of(key: str) -> Split:
    """Assigns a fact or a wording to a split: 8 % test, 4 % dev."""
    bucket = _bucket(key)
    return "test" if bucket < 8 else "dev" if bucket < 12 else "train"


def split_of_pattern(task: str, pattern: str) -> Split:
    """Assigns a pattern to a split: 14 % are asked in the test only, 8 % in the dev set only."""
    bucket = _bucket(f"{task}|{pattern}")
    return "test" if bucket < 14 else "dev" if bucket < 22 else "train"


def words_of(pattern: str) -> set[str]:
    """Collects the fixed words of a pattern: one with a word that training never shows is not held out."""
    return set(re.findall(r"[a-z\']+", re.sub(r"{[^}]*}", "", pattern)))
