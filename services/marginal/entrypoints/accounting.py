"""A router's ledger as its options say: in memory or shared through a server, with a journal behind it."""

import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from marginal.entrypoints.steady import Clock, steady_clock
from marginal.errors import ConfigurationError, InvalidRequest
from marginal.ledger.accounts import Accounts
from marginal.ledger.journal import DEFAULT_RULES, PASSING_RULES, Journal, JournalRules
from marginal.ledger.leased import LeasedStore
from marginal.ledger.memory import MemoryStore
from marginal.ledger.ports import Settled
from marginal.ledger.retelling import EpochFile
from marginal.ledger.retention import KeepRules, Retention
from marginal.ledger.slices import SHARE, FailureMode, Slices, overspend
from marginal.ledger.valkey import NAME, ValkeyStore
from marginal.ledger.valkey_link import open_client
from marginal.pricing import NANOS_PER_UNIT
from marginal.routing.ports import Recorder
from marginal.routing.record_lines import record_fields
from marginal.routing.tenants import Tenants
from marginal.telemetry.logs import Log
from marginal.telemetry.metrics import Metrics

Share = Callable[[ValkeyStore], AbstractAsyncContextManager[None]]
EPOCH_FILE = "epoch"
UNKEPT = "cost records are kept in the log only, and budgets begin anew with every start: give --journal"
DRAIN_SECONDS = 5.0
JOURNAL_DAYS = 35
"""A month can be billed for some days after its end."""

FILES = 16
"""How many files a journal of bounded size has: one is deleted at a time."""
LEAST_BYTES = 64_000
"""The least bounded size: its files have room for some records each."""


@dataclass(frozen=True, slots=True)
class LedgerOptions:
    """Where records go and where budgets are kept: `store` "" is this process, else a server's URL.

    `store_name` tells apart who shares a server and nothing else.
    """

    journal: Path | None = None
    store: str = ""
    store_name: str = NAME
    store_ca: Path | None = None
    store_password: Path | None = None
    failure_mode: FailureMode = FailureMode.LEASE
    slice_share: float = SHARE
    journal_days: int = JOURNAL_DAYS
    journal_bytes: int = 0


@asynccontextmanager
async def accounting(
    options: LedgerOptions,
    *,
    currency: str,
    tenants: Callable[[], Tenants],
    share: Share,
    recorder: Recorder,
    log: Log,
    metrics: Metrics,
) -> AsyncIterator[Accounts]:
    """The ledger of one router, recovered from its journal. Raises ConfigurationError naming the option.

    With a shared store `share` keeps what was learnt in it as well.
    """
    rules = journal_rules(options)
    async with AsyncExitStack() as stack:
        directory = options.journal
        if directory is None:
            log.warning(UNKEPT)
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marginal-journal-")))
        journal = Journal(directory, tell=lambda sentence: log.warning(sentence), rules=rules)
        await stack.enter_async_context(journal.running())
        clock = steady_clock()

        def accounts(store: MemoryStore | LeasedStore, at_once: Callable[[Settled], None] | None) -> Accounts:
            return Accounts(
                store,
                journal,
                fields=record_fields,
                currency=currency,
                clock=clock,
                at_once=at_once,
                told=recorder.completed,
            )

        if not options.store:
            memory = MemoryStore(clock)
            ledger, told_until = accounts(memory, lambda settled: memory.book.settle(settled, clock())), _always
        else:
            ledger, told_until = await _shared(
                options, directory, tenants(), currency, accounts, share, stack, log, clock
            )
        recovery = await ledger.recover()
        if recovery.lines:
            log.info(
                "journal read",
                lines=recovery.lines,
                damaged=recovery.damaged,
                settled=recovery.settled,
                recovered=len(recovery.recovered),
                recovered_nanos=recovery.recovered_nanos,
            )
        await stack.enter_async_context(ledger.running())
        if options.journal is not None:
            retention = Retention(
                directory,
                KeepRules(options.journal_days, options.journal_bytes, rules.file_bytes),
                needed_from=lambda: ledger.needed_from,
                told_until=lambda: min(ledger.told_until, told_until()),
                log=log,
                clock=clock,
                sized=metrics.journal,
            )
            await stack.enter_async_context(retention.running())
        yield ledger


def journal_rules(options: LedgerOptions) -> JournalRules:
    """When a file of the journal is full, so that a bounded one has FILES. Raises ConfigurationError."""
    if 0 < options.journal_bytes < LEAST_BYTES:
        raise ConfigurationError(
            f"--journal-bytes {options.journal_bytes}: give {LEAST_BYTES} at least, or 0 for any number"
        )
    if options.journal is None:
        return PASSING_RULES
    most = DEFAULT_RULES.file_bytes
    return replace(
        DEFAULT_RULES, file_bytes=min(most, options.journal_bytes // FILES) if options.journal_bytes else most
    )


def _always() -> float:
    """A store in this process has every record at once."""
    return math.inf


async def _shared(
    options: LedgerOptions,
    directory: Path,
    tenants: Tenants,
    currency: str,
    accounts: Callable[[LeasedStore, None], Accounts],
    share: Share,
    stack: AsyncExitStack,
    log: Log,
    clock: Clock,
) -> tuple[Accounts, Callable[[], float]]:
    client = open_client(options.store, ca_file=options.store_ca, password_file=options.store_password)
    try:
        shared = await stack.enter_async_context(ValkeyStore(client, name=options.store_name))
    except InvalidRequest as error:
        raise ConfigurationError(f"--store-name {options.store_name}: {error.problem}") from None
    kept = EpochFile(directory / EPOCH_FILE if options.journal is not None else None)
    store = LeasedStore(
        shared,
        lambda since: ledger.replay(since),
        kept,
        slices=Slices(options.failure_mode, options.slice_share),
        log=log,
        clock=clock,
        ticks=time.monotonic,
    )
    ledger: Accounts = accounts(store, None)
    budgets = [rules.budget for rules in (*tenants.by_name.values(), tenants.others)]
    most = overspend(budgets, options.failure_mode, share=options.slice_share)
    log.info(
        "budgets are shared",
        failure_mode=options.failure_mode.value,
        most_overspent=None if most is None else f"{most / NANOS_PER_UNIT:g} {currency} per router",
    )
    await stack.enter_async_context(store.running())
    await stack.enter_async_context(share(shared))
    stack.push_async_callback(store.drained, DRAIN_SECONDS)
    return ledger, lambda: store.told_until
