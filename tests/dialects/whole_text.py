"""Text that leaves an engine in whole characters only, as all of them detokenize."""

import codecs


class WholeCharacters:
    """Takes the bytes of tokens and gives text as characters become complete."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, raw: bytes) -> str:
        return self._decoder.decode(raw)

    @property
    def incomplete(self) -> bool:
        """Whether bytes wait for the rest of their character."""
        return bool(self._decoder.getstate()[0])
