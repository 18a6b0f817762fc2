"""What `marginal record` finds out before it asks: which questions, where the tiers are, and what they charge."""

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from marginal.entrypoints.running import listed
from marginal.entrypoints.services import POLICIES_FILE
from marginal.entrypoints.up import SERVICES_FILE
from marginal.errors import ConfigurationError
from marginal.evaluation.questions import Question, read_questions, section
from marginal.models import catalogue
from marginal.routing.policies import Policy
from marginal.settings import read_policies


def questions(
    source: str, *, answers: bool, tasks: Sequence[str], offset: int, limit: int | None
) -> tuple[Question, ...]:
    """A section of the questions of a file, or of those bundled with the pair of that name; only of `tasks`, if any.

    Raises ConfigurationError.
    """
    everything = read_questions(_file(source), answers=answers)
    [(id_, times)] = Counter(question.id for question in everything).most_common(1)
    if times > 1:
        raise ConfigurationError(f"{source}: id {id_} is there {times} times: rows of a run need ids of their own")
    known = {question.task for question in everything}
    if unknown := [task for task in tasks if task not in known]:
        raise ConfigurationError(f"--task {unknown[0]}: {source} has {', '.join(sorted(known))}")
    some = [question for question in everything if not tasks or question.task in tasks]
    chosen = section(some, offset=offset, limit=limit)
    if not chosen:
        raise ConfigurationError(f"--offset {offset} leaves none of the {len(some)} questions of {source}")
    return chosen


def target(named: str | None, state_dir: Path, service: str, *, option: str) -> str:
    """Where a tier is: as named, else as `marginal up` has written it down. Raises ConfigurationError."""
    if named:
        return named
    path = state_dir / SERVICES_FILE
    try:
        return next(str(one["address"]) for one in listed(state_dir) if one["service"] == service)
    except FileNotFoundError:
        raise ConfigurationError(
            f"no services are running by {path}: start them with `marginal up`, or name both tiers with --small and"
            " --large"
        ) from None
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        raise ConfigurationError(f"{path} does not say where {service} is: name it with {option}") from None


def prices(policy_file: Path | None, state_dir: Path) -> Policy:
    """A policy with the prices and their currency, which all of a file share. Raises ConfigurationError."""
    kept = state_dir / POLICIES_FILE
    policies = read_policies(policy_file or (kept if kept.exists() else None))
    return policies.by_name[policies.default]


def _file(source: str) -> Path | Traversable:
    """The file of that name; else a pair's, which are its bundled questions. Raises ConfigurationError."""
    if (path := Path(source)).exists():
        return path
    try:
        return files("marginal.models").joinpath(catalogue.pair(source).questions)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source} is no file of questions, nor a pair: {error}") from None
