"""What routers have learnt, shared through the store of their budgets: a new one starts where the others are.

Each place in the policy book is known by how many lessons its learning rests on, those of earlier lives and of routers
it was taken over from included. The learning with the most lessons is the one that is kept, so a fresh router never
overwrites what an old one knows. Routers with other criteria, as during an update, do not meet: a criterion's
fingerprint is part of what a place is known by.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from marginal.routing.book import Learner, Place, PolicyBook

NAME = "thresholds"
VERSION = 1
MOST_CHARACTERS = 1_000_000
"""How long the shared text may get; what this router uses comes first, and most learnt of the rest."""

Entry = Mapping[str, Any]
"""What was learnt at one place, as of `PolicyBook.snapshot`, and its `lessons`."""


class LearnedTexts(Protocol):
    """Where texts are kept for all routers; either call raises StoreAway."""

    async def save_learned(self, name: str, text: str) -> None: ...

    async def learned(self, name: str) -> str | None: ...


class Lessons:
    """A policy book whose places are counted: how many lessons each rests on."""

    def __init__(self, book: PolicyBook) -> None:
        self._book = book
        self._before: dict[Place, tuple[Learner, int]] = {}

    def restore(self, entries: Sequence[Entry]) -> int:
        """As `PolicyBook.restore`; an entry without lessons counts as none. Raises as it does."""
        counts = {(_place(entry), entry["fingerprint"]): _count(entry) for entry in entries}
        restored = self._book.restore(entries)
        for place, learner in self._learners().items():
            if (count := counts.get((place, learner.criterion.fingerprint))) is not None:
                self._before[place] = (learner, count)
        return restored

    def snapshot(self) -> Sequence[Entry]:
        """As `PolicyBook.snapshot`, with lessons."""
        learners = self._learners()
        self._before = {place: kept for place, kept in self._before.items() if learners.get(place) is kept[0]}
        return [
            {**entry, "lessons": learners[place].lessons + self._before.get(place, (None, 0))[1]}
            for entry in self._book.snapshot()
            if (place := _place(entry)) in learners
        ]

    def _learners(self) -> Mapping[Place, Learner]:
        return {
            place: learner for policy in self._book.policies.by_name for place, learner in self._book.learners(policy)
        }


def merged(ours: Iterable[Entry], theirs: Iterable[Entry]) -> Mapping[str, Entry]:
    """Of every place the learning with the most lessons, theirs where both have as many; ours come first."""
    mine, others = {_key(entry): entry for entry in ours}, {_key(entry): entry for entry in theirs}
    best = {key: max(others.get(key, entry), entry, key=_count) for key, entry in mine.items()}
    rest = sorted((key for key in others if key not in mine), key=lambda key: -_count(others[key]))
    return best | {key: others[key] for key in rest}


class SharedLearning:
    """The learning of one router among that of the others."""

    def __init__(self, texts: LearnedTexts, lessons: Lessons) -> None:
        self._texts = texts
        self._lessons = lessons
        self._met = False

    async def exchange(self) -> int:
        """Tells the others what is known better here; the first time takes over what they know better.

        Gives how many places were taken over. Raises StoreAway; a text that is none of ours is replaced.
        """
        text = await self._texts.learned(NAME)
        theirs = await asyncio.to_thread(_parsed, text or "")
        taken = 0
        if not self._met:
            try:
                taken = self._take(theirs)
            except (ArithmeticError, KeyError, TypeError, ValueError):
                theirs = ()
        self._met = True
        best = merged(self._lessons.snapshot(), theirs)
        known = {_key(entry): entry for entry in theirs}
        if any(entry is not known.get(key) for key, entry in best.items()):
            await self._texts.save_learned(NAME, await asyncio.to_thread(_text, list(best.values())))
        return taken

    def _take(self, theirs: Sequence[Entry]) -> int:
        ours = {_key(entry): _count(entry) for entry in self._lessons.snapshot()}
        better = [entry for entry in theirs if _count(entry) > ours.get(_key(entry), 0)]
        return self._lessons.restore(better)


def _place(entry: Entry) -> Place:
    return Place(str(entry["policy"]), str(entry["task"]), str(entry["tenant"]))


def _key(entry: Entry) -> str:
    return json.dumps([entry[part] for part in ("policy", "task", "tenant", "fingerprint")])


def _count(entry: Entry) -> int:
    count = entry.get("lessons", 0)
    if not isinstance(count, int) or count < 0:
        raise ValueError("lessons are counted")
    return count


def _parsed(text: str) -> Sequence[Entry]:
    """The entries of a text, none of one that is not ours."""
    try:
        learnt = json.loads(text)
        entries = [dict(entry) for entry in learnt["learners"]] if learnt["version"] == VERSION else []
        for entry in entries:
            _key(entry), _count(entry)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return ()
    return entries


def _text(entries: Sequence[Entry]) -> str:
    """As many entries as there is room for, from the first on."""
    room, kept = MOST_CHARACTERS, []
    for entry in entries:
        text = json.dumps(entry)
        room -= len(text)
        if room < 0:
            break
        kept.append(text)
    return f'{{"version": {VERSION}, "learners": [{", ".join(kept)}]}}'
