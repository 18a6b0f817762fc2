"""Writes what a calibration found as a section of a policy file, and puts it into one that is there."""

import hashlib
import re
import textwrap
import tomllib
from collections.abc import Sequence

from marginal.errors import ConfigurationError
from marginal.evaluation.calibrating import Estimate, Outcome
from marginal.evaluation.results import Header
from marginal.policy.calibration import Calibration
from marginal.policy.scales import Scale
from marginal.policy.scores import QUANTILE, SCORES
from marginal.policy.tracking import LEAST, MOST

WIDTH = 116
DECIMALS = 9

_TABLE = re.compile(r"""\s*\[{1,2}\s*policies\s*\.\s*(?P<quote>["']?)(?P<name>[A-Za-z0-9_-]+)(?P=quote)\s*[.\]]""")
_ANY_TABLE = re.compile(r"\s*\[{1,2}[^\[\],=]+\]{1,2}\s*(#.*)?$")


def section(outcome: Outcome, header: Header, run: str, name: str) -> str:
    """The policy `name` as TOML, with comments that say what is expected of it and where that is from."""
    choice, calibrated = outcome.choice, outcome.certificate is None and outcome.wish.aim != "share"
    body = [
        f'score = "{choice.name}"',
        f"window = {choice.window}",
        *([f"quantile = {choice.quantile!r}"] if choice.quantile != QUANTILE else []),
        f"threshold = {{ {_rule(outcome)} }}",
        f"calibrated_at = {{ temperature = {header.sampling.temperature!r}, top_p = {header.sampling.top_p!r} }}",
        *(_table(name, outcome.calibration) if calibrated else []),
    ]
    version = hashlib.sha256("\n".join(body).encode()).hexdigest()[:12]
    lines = [f"[policies.{name}]", *_comments(outcome, header, run), f'version = "{version}"', *body]
    return "\n".join(lines) + "\n"


def put_into(text: str, name: str, new: str) -> str:
    """The text of a policy file with the policy `name` replaced by a section, or that appended; all else is kept.

    Replaced is everything from the policy's own table on, those under it included, up to the next other table and the
    comments right before that. Raises ConfigurationError when the text is no TOML or has the policy in another form.
    """
    before = _parsed(text)
    lines = text.splitlines(keepends=True)
    kept: list[str] = []
    at: int | None = None
    for start, end in _blocks(lines):
        table = _TABLE.match(lines[start])
        if table and table["name"] == name:
            at = len(kept) if at is None else at
        else:
            kept += lines[start:end]
    if at is None:
        at = len(kept)
    head, tail = "".join(kept[:at]).rstrip("\n"), "".join(kept[at:]).lstrip("\n")
    apart = "" if not head else "\n" if head.rpartition("\n")[2].startswith("#") else "\n\n"
    placed = f"{head}{apart}{new}" + (f"\n{tail}" if tail else "")
    others = {other: policy for other, policy in before.get("policies", {}).items() if other != name}
    expected = before | {"policies": others | tomllib.loads(new)["policies"]}
    try:
        if tomllib.loads(placed) == expected:
            return placed
    except tomllib.TOMLDecodeError:
        pass
    raise ConfigurationError(f"policy {name} is there in a form that cannot be replaced, remove it first")


def percent(estimate: Estimate) -> str:
    """A value in percent with its interval, e.g. `97.7% (97.0 to 98.3)`."""
    low, high = 100.0 * estimate.interval.low, 100.0 * estimate.interval.high
    return f"{estimate.value:.1%} ({low:.1f} to {high:.1f})"


def _rule(outcome: Outcome) -> str:
    wish, certificate = outcome.wish, outcome.certificate
    if certificate is not None:
        return (
            f'rule = "guaranteed", value = {outcome.threshold!r}, epsilon = {round(certificate.epsilon, DECIMALS)!r},'
            f" delta = {round(certificate.delta, DECIMALS)!r}, labels = {certificate.labels}"
        )
    if wish.aim == "share":
        start = _inside(SCORES[outcome.choice.name].scale, outcome.threshold)
        return f'rule = "target_rate", rate = {wish.value!r}, start = {start!r}'
    return f'rule = "calibrated", {wish.aim} = {wish.value!r}'


def _table(name: str, calibration: Calibration) -> list[str]:
    least = calibration.least_threshold
    return [
        "",
        f"[policies.{name}.calibration]",
        f"labels = {calibration.labels}",
        *([f"least_threshold = {least!r}"] if least > calibration.scores[0] else []),
        _column("score", calibration.scores),
        *(
            _column(key, [round(value, DECIMALS) for value in values])
            for key, values in (
                ("share", calibration.shares),
                ("small_correct", calibration.small_correct),
                ("large_correct", calibration.large_correct),
                ("kept_cost", calibration.kept_cost),
                ("deferred_cost", calibration.deferred_cost),
            )
        ),
    ]


def _column(key: str, values: Sequence[float]) -> str:
    written = ", ".join(map(repr, values))
    return f"{key} = [\n{textwrap.indent(textwrap.fill(written, WIDTH), '    ')},\n]"


def _comments(outcome: Outcome, header: Header, run: str) -> list[str]:
    measured, sampling = outcome.measured, header.sampling
    recorded = f"recorded {header.created}, " if header.created else ""
    said = [
        f"Written by `marginal calibrate` from the run {run}: {header.small} and {header.large}, {recorded}"
        f"max_tokens {sampling.max_tokens},"
        f" labels {header.labels}, graded by {header.grader}.",
        f"Fitted on {outcome.calibration.labels} labels. On {measured.rows} other rows, with 95 % intervals:"
        f" quality {percent(measured.quality)} of the large model's {measured.large_accuracy:.1%},"
        f" cost {percent(measured.cost)} of always-large ({outcome.cost_model.label}),"
        f" deferred {percent(measured.share)}.",
    ]
    if outcome.certificate is not None:
        said.append(f"Promised is {outcome.certificate.sentence}.")
    return [f"# {line}" for words in said for line in textwrap.wrap(_one_line(words), WIDTH)]


def _one_line(text: str) -> str:
    """A run's and its models' names are others' words: no control characters in a comment."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _inside(scale: Scale, threshold: float) -> float:
    """A threshold that a controller can start from: not at an end of its scale."""
    place = scale.place(threshold)
    return threshold if LEAST <= place <= MOST else scale.at(min(MOST, max(LEAST, place)))


def _blocks(lines: Sequence[str]) -> list[tuple[int, int]]:
    """A text cut before every table, and before the comments and blank lines that come right before it."""
    starts = [0]
    for number, line in enumerate(lines):
        if _ANY_TABLE.match(line) and number:
            start = number
            while start - 1 > starts[-1] and not lines[start - 1].strip().partition("#")[0]:
                start -= 1
            starts += [start] if start == number else [start, number]
    return [(start, end) for start, end in zip(starts, [*starts[1:], len(lines)], strict=True) if start < end]


def _parsed(text: str) -> dict[str, dict[str, object]]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"is not TOML: {error}") from None
