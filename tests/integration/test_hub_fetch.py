"""A model on the hub is fetched once, whole and checked; when it cannot be had, the error says what to do.

Against a server on a real socket that speaks the hub's routes; the real hub is not reachable from every machine.
"""

import io
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE

from integration.hub import Hub
from marginal.errors import ModelNotFetched
from marginal.models.fetch import resolve

CONTENT = random.Random(7).randbytes(3_000_000)  # noqa: S311 (any bytes will do)
PIECE = DOWNLOAD_CHUNK_SIZE
"""The client writes what it got in pieces of so many bytes; a piece that was cut is fetched again."""


class Terminal(io.StringIO):
    """Text that goes to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(CONTENT) as running:
        yield running


def test_a_model_is_fetched_whole_and_a_line_tells_how_far_it_is(hub: Hub, tmp_path: Path) -> None:
    progress = io.StringIO()
    path = resolve(hub.name(), endpoint=hub.endpoint, cache=tmp_path, progress=progress)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path)
    assert progress.getvalue().splitlines() == [
        "fetching tiny.gguf: 0.0 of 3.0 MB",
        "fetching tiny.gguf: 3.0 of 3.0 MB",
    ]


def test_a_second_time_it_comes_from_the_cache_without_any_request(hub: Hub, tmp_path: Path) -> None:
    first = resolve(hub.name(), endpoint=hub.endpoint, cache=tmp_path, progress=io.StringIO())
    asked = len(hub.seen)
    assert resolve(hub.name(), endpoint=hub.endpoint, cache=tmp_path, progress=io.StringIO()) == first
    assert len(hub.seen) == asked


def test_on_a_terminal_a_bar_tells_how_far_it_is(hub: Hub, tmp_path: Path) -> None:
    terminal = Terminal()
    resolve(hub.name(), endpoint=hub.endpoint, cache=tmp_path, progress=terminal)
    assert "fetching tiny.gguf" in terminal.getvalue()
    assert "3.0/3.0 MB" in terminal.getvalue()


@pytest.mark.parametrize("beyond", [0, 1000])
def test_a_connection_cut_midway_is_resumed_where_it_broke(tmp_path: Path, beyond: int) -> None:
    content = CONTENT * (2 * PIECE // len(CONTENT) + 1)
    with Hub(content, cuts=[PIECE + beyond]) as hub:
        path = resolve(hub.name(), endpoint=hub.endpoint, cache=tmp_path, progress=io.StringIO())
    assert path.read_bytes() == content
    first, second = hub.downloads
    assert (first.range, first.sent) == (None, PIECE + beyond)
    assert second.range == f"bytes={PIECE}-"
    assert first.sent + second.sent == len(content) + beyond


def test_a_file_with_another_hash_than_its_name_says_is_removed(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFetched, match=f"expected SHA-256 {'0' * 64}, actual {hub.sha256}"):
        resolve(hub.name(sha256="0" * 64), endpoint=hub.endpoint, cache=tmp_path, progress=io.StringIO())
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size >= len(CONTENT)]


def test_a_cached_file_that_was_damaged_is_removed_and_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    path = resolve(hub.name(), endpoint=hub.endpoint, cache=tmp_path, progress=io.StringIO())
    with path.open("r+b") as file:
        file.write(b"damaged")
    with pytest.raises(ModelNotFetched, match="expected SHA-256"):
        resolve(hub.name(), endpoint=hub.endpoint, cache=tmp_path, progress=io.StringIO())
    again = resolve(hub.name(), endpoint=hub.endpoint, cache=tmp_path, progress=io.StringIO())
    assert again.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"file": "other.gguf"}, "no such file at this revision"),
        ({"revision": "f" * 40}, "no such revision"),
        ({"repository": "owner/other"}, "no such repository, or it is private"),
    ],
)
def test_a_name_with_a_wrong_part_says_which(hub: Hub, tmp_path: Path, wrong: dict[str, str], why: str) -> None:
    with pytest.raises(ModelNotFetched, match=why):
        resolve(hub.name(**wrong), endpoint=hub.endpoint, cache=tmp_path, progress=io.StringIO())
    assert not hub.downloads


@pytest.mark.parametrize("status", [403, 500])
def test_a_refusal_tells_its_status_and_the_way_around(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.status = status
    with pytest.raises(ModelNotFetched, match=f"refused it with status {status}.*give its path as the model"):
        resolve(hub.name(), endpoint=hub.endpoint, cache=tmp_path, progress=io.StringIO())


def test_without_network_the_error_comes_at_once_and_says_to_bring_the_file(hub: Hub, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ModelNotFetched, match=r"cannot be reached.*download the file .* and give its path"):
        resolve(hub.name(), endpoint=f"http://127.0.0.1:{closed_port()}", cache=tmp_path, progress=io.StringIO())
    assert time.monotonic() - start < 10


def test_a_cached_file_needs_no_network(hub: Hub, tmp_path: Path) -> None:
    path = resolve(hub.name(), endpoint=hub.endpoint, cache=tmp_path, progress=io.StringIO())
    assert resolve(hub.name(), endpoint=f"http://127.0.0.1:{closed_port()}", cache=tmp_path) == path


def test_when_the_hub_is_switched_off_by_the_environment_nothing_is_asked(hub: Hub, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from marginal.models.fetch import resolve\n"
        "resolve(sys.argv[1], endpoint=sys.argv[2], cache=Path(sys.argv[3]))"
    )
    ran = subprocess.run(  # noqa: S603 (our own interpreter)
        [sys.executable, "-c", program, hub.name(), hub.endpoint, str(tmp_path)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "ModelNotFetched" in ran.stderr
    assert "HF_HUB_OFFLINE is set and the file is not in the cache" in ran.stderr
    assert not hub.seen


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port
