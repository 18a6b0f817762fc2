"""An API key, which comes from a file and from nowhere else."""

from pathlib import Path

from marginal.errors import ConfigurationError, TierUnavailable


class KeyFile:
    """An API key in a file, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError when there is no key in it."""
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._bearer = ""
        try:
            self.bearer()
        except TierUnavailable as error:
            raise ConfigurationError(f"api_key_file: {error}") from None

    def bearer(self) -> str:
        """The Authorization header. Raises TierUnavailable."""
        try:
            now = self._path.stat()
            seen = (now.st_mtime_ns, now.st_size, now.st_ino)
            if seen != self._seen:
                self._bearer, self._seen = f"Bearer {_key(self._path.read_text())}", seen
        except (OSError, ValueError):
            raise TierUnavailable("the engine's key file cannot be read, or is not one line of ASCII") from None
        return self._bearer


def _key(text: str) -> str:
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError
    return key
