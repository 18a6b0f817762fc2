"""What each grader lets pass, and what not."""

from typing import get_args

import pytest

from marginal.entrypoints.learning import GraderName
from marginal.errors import ConfigurationError
from marginal.evaluation.graders import GRADERS, grader

RIGHT = [
    ("exact", " timer 5 min\n", "timer 5 min"),
    ("normalised", "The  Eiffel Tower.", "eiffel tower"),
    ("normalised", "a dog, an owl", "dog owl"),
    ("choice", "B", "B"),
    ("choice", "(B)", "B"),
    ("choice", "b.", "B"),
    ("choice", "B) Paris", "B"),
    ("choice", "**B**", "(b)"),
    ("choice", "B because it is the capital", "B"),
    ("choice", "B\nQ: next", "B"),
    ("choice", "Answer: B", "B"),
    ("choice", "The answer is (B).", "B"),
    ("choice", "Option A is tempting, but the correct answer is B", "B"),
    ("choice", "2. Paris", "2"),
    ("choice", "Paris, of course", "paris"),
    ("choice", "The answer is C", "C. Paris"),
    ("numeric", "so it is 42.", "42"),
    ("numeric", "3 + 4 = 7", "7.0"),
    ("numeric", "about $1,234.50 in all", "1234.5"),
    ("numeric", "50%", "0.5"),
    ("numeric", "50 %", "50"),
    ("numeric", "0.5", "50%"),
    ("numeric", "between 3-4", "4"),
    ("numeric", "it is \N{MINUS SIGN}7", "-7"),
    ("numeric", "1e3", "1000"),
    ("numeric", "0.3333333", "0.33333333"),
]

WRONG = [
    ("exact", "timer 5 Min", "timer 5 min"),
    ("normalised", "eiffel", "eiffel tower"),
    ("choice", "C", "B"),
    ("choice", "Best of all", "B"),
    ("choice", "", "B"),
    ("choice", "Option B is tempting, but the answer is A", "B"),
    ("choice", "the answer is a dog", "A"),
    ("choice", "Parisian", "Paris"),
    ("numeric", "7 of 9", "7"),
    ("numeric", "-7", "7"),
    ("numeric", "none", "0"),
    ("numeric", "5%", "50%"),
    ("numeric", "1.001", "1"),
    ("numeric", "1,2345", "12345"),
]


@pytest.mark.parametrize(("name", "text", "expected"), RIGHT)
def test_a_right_answer_passes(name: str, text: str, expected: str) -> None:
    assert grader(name)(text, expected)


@pytest.mark.parametrize(("name", "text", "expected"), WRONG)
def test_a_wrong_answer_does_not(name: str, text: str, expected: str) -> None:
    assert not grader(name)(text, expected)


def test_an_unknown_grader_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="fuzzy is not known, there are exact, normalised, choice, numeric"):
        grader("fuzzy")


def test_the_command_line_offers_every_grader() -> None:
    assert get_args(GraderName) == tuple(GRADERS)
