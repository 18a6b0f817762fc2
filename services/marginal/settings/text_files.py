"""A file of settings: its text, what that means, and its name in whatever is wrong with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from marginal.errors import ConfigurationError

Meaning = TypeVar("Meaning")


@dataclass(frozen=True, slots=True)
class SettingsFile(Generic[Meaning]):
    """A text file that `build` makes something of; every ConfigurationError names it as `what` and its path."""

    what: str
    path: Path
    build: Callable[[str], Meaning]
    most_bytes: int

    def read(self) -> Meaning:
        """What the file means now. Raises ConfigurationError."""
        return self.parse(self.text())

    def text(self) -> str:
        """The text of the file. Raises ConfigurationError when it cannot be read, or is too long."""
        with self._named():
            try:
                if self.path.stat().st_size > self.most_bytes:
                    raise ConfigurationError(f"has more than {self.most_bytes:,} bytes")
                return self.path.read_text("utf-8-sig")
            except UnicodeDecodeError:
                raise ConfigurationError("is not UTF-8 text") from None
            except OSError as error:
                raise ConfigurationError(f"cannot be read, {(error.strerror or 'no reason').lower()}") from None

    def parse(self, text: str) -> Meaning:
        """What a text of the file means. Raises ConfigurationError."""
        with self._named():
            return self.build(text)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.what} {self.path}: {error}") from None
