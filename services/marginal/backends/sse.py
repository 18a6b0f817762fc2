"""Reads Server-Sent Events: bytes in, the data of whole events out.

As https://html.spec.whatwg.org/multipage/server-sent-events.html says, but for three things: bytes that are not UTF-8
are refused, so is an event that is too large, and fields other than `data` mean nothing here.
"""

from marginal.errors import BackendProtocol

MOST_BYTES = 1024 * 1024
"""The largest event that is read; an event with 20 alternatives of one token has 4 KB."""

_BOM = b"\xef\xbb\xbf"


class EventStream:
    """Cuts a stream of bytes into events, wherever the network cut it."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._line: list[bytes] = []
        self._waiting = 0
        self._data: list[bytes] = []
        self._after_return = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[str]:
        """Takes the next bytes and gives the data of the events they complete. Raises BackendProtocol."""
        if b"\r" in chunk or self._after_return:
            chunk = self._with_newlines(chunk)
        first, *others = chunk.split(b"\n")
        if not others:
            self._keep(first)
            return []
        self._line.append(first)
        others.insert(0, b"".join(self._line))
        self._line.clear()
        last = others.pop()
        events: list[str] = []
        for line in others:
            self._read(line, events)
        self._waiting = sum(map(len, self._data))
        self._keep(last)
        return events

    def _read(self, line: bytes, events: list[str]) -> None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif not line and self._data:
            events.append(self._dispatched())
        elif line == b"data":
            self._data.append(b"")

    def _dispatched(self) -> str:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        if len(data) > self._most_bytes:
            raise _too_large()
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise BackendProtocol("the engine sent bytes that are not UTF-8") from None

    def _keep(self, part: bytes) -> None:
        """Keeps part of a line until the rest comes."""
        self._line.append(part)
        self._waiting += len(part)
        if self._waiting > self._most_bytes:
            raise _too_large()

    def _with_newlines(self, chunk: bytes) -> bytes:
        """The chunk with one kind of line end; a CR at its end may have its LF in the next one."""
        if self._after_return and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_return = False
        if chunk:
            self._after_return = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _too_large() -> BackendProtocol:
    return BackendProtocol("the engine sent an event that is too large")
