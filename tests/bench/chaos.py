"""`python -m tests.bench.chaos`: routers, their store and both tiers killed and frozen at random, under load.

When it is over every request that was let in has one final record, every answer that a caller got is in it at the price
that was told, and the store's budgets are the sum of the records, to the nano-unit. Ends with 1 when that is not so.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from marginal.entrypoints.processes import free_addresses
from tests.bench.chaos_faults import AT_MONEY, AT_TIERS, CALM, LEASE_SECONDS, MONEY_WEIGHTS, Faults, faults
from tests.bench.chaos_load import Load, Told
from tests.engines.audit import Audit, audited, told_by
from tests.engines.services import Service
from tests.engines.valkey import ValkeyProcess

SMALL = "scripted:tokens=10,delay_ms=4,unsure=0.35"
LARGE = "scripted:tokens=12,delay_ms=6"
ROUTERS = 2
SAY_SECONDS = 5.0
SETTLE_SECONDS = 2 * LEASE_SECONDS
"""What a store may still hold for requests that no router heard back about goes with its lease."""

TENANTS = """
[tenants.store-frozen.budget]
per_month = 0.02

[others.budget]
per_month = 1000.0
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What one fault did: how often it happened, what callers saw meanwhile, and what the books say of it.

    `lost` are requests without a record, `double` those with two, `misstated` answers at another price than was told.
    `twice` are answers to an idempotency key that was answered already, each of which is on the books: a store that
    cannot be asked, or has forgotten, does not know the key.
    """

    fault: str
    times: int
    requests: int
    answered: int
    unavailable: int
    other: int
    records: int
    reckoned: int
    lost: int
    double: int
    misstated: int
    twice: int
    difference_nanos: int

    @property
    def clean(self) -> bool:
        return not (self.lost or self.double or self.misstated or self.difference_nanos)


async def wreak(folder: Path, *, minutes: float, seed: int, callers: int) -> tuple[list[Row], Audit]:
    """Runs everything, and looks at the books in the end."""
    lot = random.Random(seed)  # noqa: S311
    admins = free_addresses("127.0.0.1", ROUTERS)
    journals = [folder / f"journal-{number}" for number in range(ROUTERS)]
    tenants = folder / "tenants.toml"
    tenants.write_text(TENANTS)
    with ExitStack() as stack:
        store = stack.enter_context(ValkeyProcess("--appendonly", "yes"))
        small = stack.enter_context(Service("small-model", folder, "--model", SMALL))
        large = stack.enter_context(Service("large-model", folder, "--model", LARGE))
        common = ("--small", small.target, "--large", large.target, "--store", store.url)
        told = ("--trust-tenant-header", "--tenants-file", str(tenants))
        routers = [
            Service("router", folder, *common, *told, "--journal", str(journal), "--admin-listen", admin)
            for journal, admin in zip(journals, admins, strict=True)
        ]
        for service in (small, large, *routers):
            stack.enter_context(service).start()
        for service in (small, large, *routers):
            await service.serving()
        happening = faults(lot, routers=routers, small=small, large=large, store=store)
        load = Load(lot, [router.target for router in routers], lambda: happening.now)
        await _under_load(load, happening, callers=callers, seconds=60.0 * minutes)
        _say(f"quiet now; waiting for the books, {SETTLE_SECONDS:g} s at most")
        audit = await audited(told_by(admins[0]), *journals, seconds=SETTLE_SECONDS, every_seconds=2.0)
    return _rows(load.told, audit, happening), audit


async def _under_load(load: Load, happening: Faults, *, callers: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    saying = asyncio.create_task(_progress(load, happening, until))
    loading = asyncio.create_task(load.run(callers))
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(happening.happen(AT_TIERS, weights=[1.0] * len(AT_TIERS), until=until))
            tasks.create_task(happening.happen(AT_MONEY, weights=MONEY_WEIGHTS, until=until))
        await asyncio.sleep(max(1.0, until - loop.time()))
    finally:
        load.stopped = True
        saying.cancel()
        with suppress(asyncio.CancelledError):
            await saying
        await loading


async def _progress(load: Load, happening: Faults, until: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SAY_SECONDS)
        answered = sum(told.answered for told in load.told)
        now = ", ".join(happening.lasting) or CALM
        done, left = sum(happening.times.values()), max(0.0, until - loop.time())
        _say(f"{left:4.0f} s left: {len(load.told)} asked, {answered} answered, {done} faults, now {now}")


def _rows(told: Sequence[Told], audit: Audit, happening: Faults) -> list[Row]:
    tenant_of = {request_id: record["tenant"] for request_id, record in audit.records.items()}
    tenant_of |= {one.request_id: one.tenant for one in told if one.request_id}
    double = Counter(tenant_of.get(name, CALM) for name, times in audit.not_once.items() if times > 1)
    unrecorded = {name for name, times in audit.not_once.items() if times == 0} | audit.unfinished
    unrecorded |= {one.request_id for one in told if one.answered and one.request_id not in audit.records}
    lost = Counter(tenant_of.get(name, CALM) for name in unrecorded)
    off = Counter[str]()
    for difference in audit.differences:
        off[difference.tenant] += abs(difference.nanos)
    return [
        _row(fault, times, told, audit, lost=lost[fault], double=double[fault], off=off[fault])
        for fault, times in {CALM: 1, **dict.fromkeys((*AT_TIERS, *AT_MONEY), 0), **happening.times}.items()
    ]


def _row(fault: str, times: int, told: Sequence[Told], audit: Audit, *, lost: int, double: int, off: int) -> Row:
    calls = [one for one in told if one.tenant == fault]
    records = [record for record in audit.records.values() if record["tenant"] == fault]
    answered = [one for one in calls if one.answered]
    unavailable = sum(one.status.startswith("UNAVAILABLE") for one in calls)
    return Row(
        fault=fault,
        times=times,
        requests=len(calls),
        answered=len(answered),
        unavailable=unavailable,
        other=len(calls) - len(answered) - unavailable,
        records=len(records),
        reckoned=sum(record["settlement"] != "settled" for record in records),
        lost=lost,
        double=double,
        misstated=sum(_is_misstated(one, audit) for one in answered),
        twice=sum(times - 1 for times in Counter(one.key for one in answered if one.key).values()),
        difference_nanos=off,
    )


def _is_misstated(told: Told, audit: Audit) -> bool:
    """Whether a caller was told another price than the record has; a shadow attempt comes on top of what is told."""
    record = audit.records.get(told.request_id)
    if record is None:
        return False
    paid = record["total_nanos"]
    return paid < (told.nanos or 0) if told.kind == "shadow" else paid != told.nanos


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def table(rows: Sequence[Row]) -> Table:
    shown = Table(box=None, title="faults, what callers saw meanwhile, and what the books say")
    shown.add_column("fault", no_wrap=True)
    for name in list(Row.__dataclass_fields__)[1:]:
        shown.add_column(name.replace("_", "\n"), justify="right")
    for row in rows:
        name, *figures = asdict(row).values()
        shown.add_row(name, *(f"{figure}" for figure in figures))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.chaos",
        description=__doc__,
        epilog="Example: python -m tests.bench.chaos --minutes 3 --seed 7 --json",
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--callers", type=int, default=12, help="at a time")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty directory for all that is written")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = given.keep or Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        rows, audit = asyncio.run(wreak(folder, minutes=given.minutes, seed=given.seed, callers=given.callers))
    clean = audit.clean and all(row.clean for row in rows)
    if given.json:
        summary = {"clean": clean, "seed": given.seed, "minutes": given.minutes, "held_nanos": audit.held_nanos}
        print(json.dumps(summary | {"faults": [asdict(row) for row in rows]}))  # noqa: T201
    else:
        Console(width=140).print(table(rows))
        _say(f"{'clean' if clean else 'NOT CLEAN'}: {audit.held_nanos} nano-units are still held")
    raise SystemExit(0 if clean else 1)


if __name__ == "__main__":
    main()
