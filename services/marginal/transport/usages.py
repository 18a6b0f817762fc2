"""What a model service's generations used, for callers who left them before their end."""

import asyncio

from marginal.errors import InvalidRequest
from marginal.tokens import Usage

REMEMBERED = 4096
"""Generations that have ended; who asks does so at once."""

MOST_CHARACTERS = 64
FIELD = "generation_id"


class Usages:
    """The usage of generations by the ids that their callers gave them; "" is none, and is not remembered."""

    def __init__(self, *, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._under_way: dict[str, asyncio.Future[Usage]] = {}
        self._ended: dict[str, Usage] = {}

    def begin(self, generation_id: str) -> None:
        """Takes a new generation. Raises InvalidRequest for an id that is too long, or another's."""
        if len(generation_id) > MOST_CHARACTERS:
            raise InvalidRequest(FIELD, f"has {len(generation_id)} characters, at most {MOST_CHARACTERS} are taken")
        if generation_id in self._under_way or generation_id in self._ended:
            raise InvalidRequest(FIELD, "is another generation's")
        if generation_id:
            self._under_way[generation_id] = asyncio.get_running_loop().create_future()

    def end(self, generation_id: str, usage: Usage) -> None:
        """Takes what a generation that was begun has used in all."""
        if not generation_id:
            return
        self._under_way.pop(generation_id).set_result(usage)
        self._ended[generation_id] = usage
        if len(self._ended) > self._remembered:
            del self._ended[next(iter(self._ended))]

    async def of(self, generation_id: str) -> Usage:
        """Waits until a generation has ended. Raises InvalidRequest for one that is not known, or no more."""
        if (usage := self._ended.get(generation_id)) is not None:
            return usage
        if (under_way := self._under_way.get(generation_id)) is None:
            raise InvalidRequest(FIELD, "is no generation's that is remembered")
        return await asyncio.shield(under_way)
