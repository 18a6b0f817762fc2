"""A1 to A12: requests that cannot be served. Each is refused by its own rule, and nothing is held, asked or quoted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.type.money_pb2 import Money

from engines.callers import Request, Seen
from integration.abuse.house import House, asking
from marginal.transport.validation import Limits
from marginal.v1 import generation_pb2

Sampling = generation_pb2.Sampling
ROLES = {"nobody": 0, "user": generation_pb2.ROLE_USER, "assistant": generation_pb2.ROLE_ASSISTANT}
MOST = Limits().prompt_bytes
MIB = 1024 * 1024
LONGEST_WORDS = 200
"""Characters of a status text: none of them repeats what was sent."""


@dataclass(frozen=True)
class Row:
    """What is sent and how it is refused; `field` "" is a refusal by gRPC itself, before anything of ours sees it."""

    name: str
    sent: Request | bytes
    field: str = ""
    says: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    compression: grpc.Compression | None = None

    @property
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INVALID_ARGUMENT if self.field else grpc.StatusCode.RESOURCE_EXHAUSTED


def talk(*turns: tuple[str, str]) -> Request:
    return Request(messages=[generation_pb2.Message(role=ROLES[role], text=text) for role, text in turns])


def sampled(**how: float) -> Request:
    return Request(prompt="hi", sampling=Sampling(**how))  # type: ignore[arg-type]


def numbered(field: str, values: Sequence[float], row: str) -> list[Row]:
    return [Row(f"{row}-{field}-{value:g}", sampled(**{field: value}), f"sampling.{field}") for value in values]


NEGATIVE_TOKENS = b"\x0a\x02hi\x22\x0b\x08" + b"\xff" * 9 + b"\x01"
"""Prompt "hi" and sampling.max_tokens -1, which no client of ours would write."""

ROWS = [
    Row("A1-empty-prompt", Request(), "prompt"),
    Row("A1-only-whitespace", Request(prompt=" \n\t\u00a0\u2003"), "prompt"),
    Row("A1-last-message-is-blank", talk(("user", "hi"), ("user", " \n")), "messages"),
    Row("A2-no-bytes-at-all", b"", "prompt"),
    Row("A2-only-unknown-fields", b"\xfa\x3f\x02hi", "prompt"),
    Row("A2-message-of-nobody", talk(("nobody", "hi")), "messages[0].role"),
    Row("A2-message-without-text", talk(("user", "")), "messages"),
    Row("A2-the-assistant-had-the-last-word", talk(("user", "hi"), ("assistant", "hi")), "messages[1].role"),
    Row("A3-prompt-one-byte-too-long", asking("x" * (MOST + 1)), "prompt", (str(MOST), str(MOST + 1))),
    Row("A3-bytes-are-counted-not-letters", asking("é" * (MOST // 2) + "!"), "prompt", (str(MOST), str(MOST + 1))),
    Row("A3-messages-count-together", talk(("user", "x" * MOST), ("user", "!")), "messages", (str(MOST + 1),)),
    Row("A3-too-many-messages", talk(*[("user", "")] * 256, ("user", "hi")), "messages", ("256",)),
    Row("A4-request-over-the-transport-limit", asking("x" * (MIB + 1))),
    Row("A5-prompt-over-the-models-context", asking("word " * 5_000), "messages", ("5000", "4096")),
    *numbered("max_tokens", (0, 2**31 - 1, 2**32 - 1, 2049), "A6"),
    Row("A6-max_tokens-negative", NEGATIVE_TOKENS, "sampling.max_tokens"),
    *numbered("temperature", (math.nan, math.inf, -math.inf, -1.0, 1e308, 2.01), "A7"),
    *numbered("top_p", (math.nan, math.inf, -math.inf, 0.0, -0.1, 1e308, 1.01), "A7"),
    Row("A7-max_cost-negative", asking(max_cost=Money(currency_code="USD", units=-1)), "max_cost"),
    Row("A7-max_cost-without-end", asking(max_cost=Money(currency_code="USD", nanos=2**31 - 1)), "max_cost"),
    Row(
        "A7-max_cost-in-no-currency",
        asking(max_cost=Money(currency_code="X" * 1_000, units=1)),
        "max_cost.currency_code",
        ("USD",),
    ),
    Row("A8-prompt-is-not-utf-8", b"\x0a\x02\xff\xfe", "request"),
    Row("A8-policy-is-not-utf-8", b"\x0a\x02hi\x2a\x02\xc3\x28", "request"),
    Row("A8-surrogates", b"\x0a\x03\xed\xa0\x80", "request"),
    Row("A9-random-bytes", bytes(range(255, 0, -1)), "request"),
    Row("A9-truncated-varint", b"\x30\xff\xff", "request"),
    Row("A9-truncated-text", b"\x0a\x05ab", "request"),
    Row("A10-nested-3000-deep", b"\x0b" * 3_000, "request"),
    Row("A10-nested-and-closed", b"\x0b" * 3_000 + b"\x0c" * 3_000, "request"),
    Row("A11-gzip-bomb", asking("0" * (8 * MIB)), compression=grpc.Compression.Gzip),
    Row("A12-metadata-of-20-kB", asking(), metadata=(("x-padding", "x" * 20_000),)),
]


async def refused(house: House, row: Row) -> Seen:
    return await house.caller().call(row.sent, *row.metadata, compression=row.compression)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_request_that_cannot_be_served(house: House, row: Row) -> None:
    before, asked = house.admitted().keys(), house.tiers.asked
    seen = await refused(house, row)
    assert seen.code is row.code
    assert len(seen.text) < LONGEST_WORDS
    let_in = house.admitted().keys() - before
    if not row.field:
        assert (seen.reason, seen.request_id, let_in) == ("", "", set())
        return
    assert (seen.reason, seen.fields) == ("INVALID_REQUEST", [row.field])
    assert [said for said in row.says if said not in seen.text] == []
    assert (seen.pushback, seen.retry_seconds) == ("-1", None)
    if row.name.startswith("A5"):  # only the model can count its tokens, and counting is free
        await house.settled()
        assert let_in == {seen.request_id}
        assert house.record(seen.request_id)["total_nanos"] == 0
    else:
        assert let_in == set()
        assert house.tiers.asked == asked


async def test_a3_the_limit_itself_is_let_in(house: House) -> None:
    seen = await house.caller().call(asking("x" * MOST))
    assert (seen.code, seen.tier) == (grpc.StatusCode.OK, "SMALL")


async def test_a4_a11_large_and_swelling_requests_leave_the_memory_as_it_was(house: House) -> None:
    rows = [row for row in ROWS if row.name.startswith(("A4", "A11"))]
    for row in rows:
        await refused(house, row)
    before = resident_bytes(house.running.pid)
    for _ in range(6):
        for row in rows:
            await refused(house, row)
    assert resident_bytes(house.running.pid) - before < 16 * MIB


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096
