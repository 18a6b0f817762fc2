"""Faults of a router and its machine, by the numbers of the catalogue: F35, F36, F42 and F45.

After every row each request has one final record, and the ledger agrees with the journal to the nano-unit. F27 to F34
are in `test_store_faults.py`, every step at which a router can die in `test_crashes.py`, and F46 is
`test_a_policy_changes_without_a_restart_and_a_bad_one_is_refused` of `test_policies.py`.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engines.audit import told_by
from engines.callers import asking
from engines.obedient import Tiers, obedient_tiers
from integration.houses import SURE, UNSURE, house_of, until
from marginal.entrypoints.failpoints import VARIABLE
from marginal.errors import TierUnavailable
from marginal.routing.terms import Step
from marginal.transport.router_client import wait_until_serving
from marginal.v1 import router_pb2

SLOW = "small:tokens=400,delay_ms=20"


@pytest.fixture(scope="module")
async def tiers() -> AsyncIterator[Tiers]:
    async with obedient_tiers() as both:
        yield both


@pytest.mark.parametrize(
    ("step", "charged"),
    [
        pytest.param(Step.RESERVED, "all that was held", id="F35 between reserve and first token"),
        pytest.param(Step.GENERATED, "all that was held", id="F36 after generation, before settle"),
        pytest.param(Step.SETTLED, "what it came to", id="F36 after settle, before the caller was told"),
    ],
)
async def test_a_request_whose_router_is_killed_is_charged_once(
    step: Step, charged: str, tiers: Tiers, tmp_path: Path
) -> None:
    house = house_of(tmp_path, tiers)
    with house.router as router:
        router.start(**{VARIABLE: step.value})
        await router.serving()
        async with house.caller() as caller:
            seen = await caller.call(asking(SURE, idempotency_key="once"))
        assert (seen.status, await router.ended()) == ("UNAVAILABLE", -signal.SIGKILL)
        router.start()
        await router.serving()
        [record] = (await house.audited()).records.values()
        async with house.caller() as caller:
            again = await caller.call(asking(SURE, idempotency_key="once"))
        audit = await house.audited()
    if charged == "all that was held":
        assert (record["settlement"], record["error"]) == ("recovered", "RouterLost")
        assert record["total_nanos"] == record["wasted_nanos"] > again.nanos
        assert (again.status, len(audit.records)) == ("OK", 2)
    else:
        assert (record["settlement"], record["error"]) == ("settled", None)
        assert (again.status, len(audit.records)) == ("ALREADY_EXISTS ALREADY_ANSWERED", 1)


JUMPING = """
import pathlib, time, types
from grpc._cython import cygrpc
from grpc.aio import _utils
cygrpc.time = _utils.time = types.SimpleNamespace(time=time.time)
now, offset = time.time, pathlib.Path({offset!r})
time.time = lambda: now() + float(offset.read_text())
"""
"""Lets the clock of a Python process jump, but for gRPC: it would see the ends of a deadline by different clocks."""


@pytest.mark.parametrize("hours", [1, -1], ids=["F45 an hour on", "F45 an hour back"])
async def test_a_clock_that_jumps_ends_no_lease_no_deadline_and_no_window(
    hours: int, tiers: Tiers, tmp_path: Path
) -> None:
    offset, house = tmp_path / "offset", house_of(tmp_path, tiers)
    offset.write_text("0")
    tmp_path.joinpath("sitecustomize.py").write_text(JUMPING.format(offset=str(offset)))
    with house.router as router:
        router.start(PYTHONPATH=str(tmp_path))
        await router.serving()
        async with house.caller() as caller:
            first = await caller.call(asking(SURE))
            under_way = asyncio.create_task(caller.call(asking(SLOW, max_tokens=400)))
            await until(lambda: tiers.active)
            before = await told_by(house.admin)()
            offset.write_text(str(3600 * hours))
            after = await caller.call(asking(SURE))
            meanwhile = await told_by(house.admin)()
            assert (await under_way).status == first.status == after.status == "OK"
        audit = await house.audited()
    assert [one.period for one in meanwhile] == [one.period for one in before]
    assert all(one.held_nanos > 0 for one in meanwhile)
    assert {record["settlement"] for record in audit.records.values()} == {"settled"}
    assert len(audit.records) == 3


DISK_BYTES = 64 * 1024
OWN_MOUNTS = ("unshare", "--mount") if os.getuid() == 0 else ("unshare", "--map-root-user", "--mount")


def own_disk(folder: Path) -> tuple[str, ...]:
    """Words before a command that give it a small disk of its own under `folder`."""
    mount = f"mount -t tmpfs -o size={DISK_BYTES} tmpfs {folder} && exec "
    return (*OWN_MOUNTS, "sh", "-c", f'{mount} "$@"', "sh")


def can_have_its_own_disk() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run((*OWN_MOUNTS, "true"), check=False, capture_output=True).returncode == 0  # noqa: S603


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Leaves no room for another page."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()


@pytest.mark.skipif(not can_have_its_own_disk(), reason="F42 needs a mount namespace: unshare --mount")
async def test_f42_without_room_for_records_the_large_tier_is_refused_and_no_record_is_lost(
    tiers: Tiers, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    house = house_of(tmp_path, tiers, journal=disk / "journal")
    insists = asking(UNSURE, on_degrade=router_pb2.ON_DEGRADE_FAIL)
    with house.router as router:
        router.start(*own_disk(disk))
        await router.serving()
        seen_from_here = Path(f"/proc/{router.pid}/root{disk}")
        house.journal = seen_from_here / "journal"
        async with house.caller() as caller:
            before = await caller.call(asking(UNSURE))
            under_way = asyncio.create_task(
                caller.call(asking(f"{UNSURE} large:tokens=400,delay_ms=10", max_tokens=400))
            )
            await until(lambda: tiers.large.active)
            with filled(seen_from_here):
                while await _serves(router.target, router.service):
                    assert (await caller.call(asking(SURE))).status == "OK"
                degraded, refused = await caller.call(asking(UNSURE)), await caller.call(insists)
                finished = await under_way
            await router.serving()
            after = await caller.call(asking(UNSURE))
        audit = await house.audited()
    assert (before.tier, before.status, finished.tier, finished.status) == ("LARGE", "OK", "LARGE", "OK")
    assert (degraded.status, degraded.tier, degraded.degraded) == ("OK", "SMALL", "LEDGER_WRITE")
    assert refused.status == "UNAVAILABLE LEDGER_WRITE"
    assert (after.tier, after.status) == ("LARGE", "OK")
    for seen in (before, finished, degraded, after):
        assert audit.record(seen.request_id)["total_nanos"] == seen.nanos
    assert {record["settlement"] for record in audit.records.values()} == {"settled"}


async def _serves(target: str, service: str) -> bool:
    try:
        await wait_until_serving(target, service, timeout_seconds=0.5)
    except TierUnavailable:
        return False
    return True
