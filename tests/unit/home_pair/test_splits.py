"""The split: by fact or wording, and by pattern."""

from collections import Counter

import pytest

from home_pair.requests import TASKS
from home_pair.tasks import Task, split_of, words_of

SIMPLE = [task for task in TASKS.values() if task.patterns]


def test_about_eight_in_a_hundred_facts_are_kept_for_the_test() -> None:
    counts = Counter(split_of(f"fact {n}") for n in range(20_000))
    assert 0.07 < counts["test"] / 20_000 < 0.09
    assert 0.03 < counts["dev"] / 20_000 < 0.05


@pytest.mark.parametrize("task", SIMPLE, ids=lambda task: task.name)
def test_every_pattern_belongs_to_one_split(task: Task) -> None:
    for form, patterns in task.patterns.items():
        parts = [task.by_split[form, split] for split in ("train", "dev", "test")]
        assert sorted(p for part in parts for p in part) == sorted(patterns)


@pytest.mark.parametrize("task", SIMPLE, ids=lambda task: task.name)
def test_a_held_out_pattern_holds_no_word_that_training_never_shows(task: Task) -> None:
    for form in task.patterns:
        taught = {word for pattern in task.by_split[form, "train"] for word in words_of(pattern)}
        for split in ("dev", "test"):
            for pattern in task.by_split[form, split]:
                assert words_of(pattern) <= taught


def test_some_patterns_are_kept_for_the_test() -> None:
    assert sum(len(task.by_split[form, "test"]) for task in SIMPLE for form in task.patterns) >= 20
