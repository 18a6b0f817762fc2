"""The generator: what it draws, and what it keeps from training."""

from itertools import islice

import pytest

from home_pair.requests import NATURAL_MIX, TASKS, TRAINING_MIX, Example, draw, held_out


def drawn(split: str, count: int, seed: int = 3) -> list[Example]:
    return list(islice(draw(split, seed), count))


def test_the_same_seed_draws_the_same_examples() -> None:
    assert drawn("train", 300) == drawn("train", 300)


def test_another_seed_draws_other_examples() -> None:
    assert drawn("train", 50, seed=3) != drawn("train", 50, seed=4)


@pytest.fixture(scope="module")
def questions() -> list[Example]:
    return held_out("test", 2026, 1000)


def test_no_held_out_request_is_drawn_for_training(questions: list[Example]) -> None:
    trained = {example.request for example in islice(draw("train", 1, TRAINING_MIX), 20_000)}
    assert not trained & {example.request for example in questions}


def test_dev_and_test_share_no_request() -> None:
    dev = {example.request for example in held_out("dev", 1, 200)}
    assert not dev & {example.request for example in held_out("test", 1, 200)}


def test_the_held_out_set_has_no_request_twice(questions: list[Example]) -> None:
    assert len({example.request for example in questions}) == 1000


def test_the_held_out_set_asks_for_every_task(questions: list[Example]) -> None:
    assert {example.task for example in questions} == set(TASKS)


def test_both_mixes_weigh_every_task() -> None:
    assert set(NATURAL_MIX) == set(TRAINING_MIX) == set(TASKS)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_requests_and_answers_are_lower_case_ascii_without_control_tokens(split: str) -> None:
    for example in drawn(split, 500):
        for text in (example.request, example.answer):
            assert text.isascii()
            assert text == text.lower().strip() != ""
            assert not any(mark in text for mark in ("<|", "  ", "{", "["))


def test_one_request_has_one_answer() -> None:
    answers: dict[str, str] = {}
    for example in drawn("train", 10_000):
        assert answers.setdefault(example.request, example.answer) == example.answer, example
