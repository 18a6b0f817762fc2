"""What a score reads at one position of an answer."""

from collections.abc import Callable, Sequence

from marginal.policy.evidence import ClassMasses, class_masses
from marginal.tokens import Token


class Reading:
    """Reads the classes of a declared set at the first position, and the open vocabulary wherever there are none.

    `bounded` is whether a class was outside the alternatives: what was read is then a bound, see `ClassMasses`.
    """

    __slots__ = ("_choices", "_read", "_read_choices", "bounded")

    def __init__(
        self,
        read: Callable[[Token], float],
        read_choices: Callable[[ClassMasses], float] | None = None,
        choices: Sequence[str] = (),
    ) -> None:
        self._read = read
        self._read_choices = read_choices
        self._choices = choices
        self.bounded = False

    def at(self, token: Token, position: int) -> float:
        """The value at this token and its position in the answer. Raises EvidenceGap."""
        if position or not self._choices or self._read_choices is None:
            return self._read(token)
        masses = class_masses(token, self._choices)
        self.bounded = masses.bounded
        return self._read_choices(masses)
