"""The three services that `marginal up` runs: how each is started, and the table of them."""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from marginal.backends.endpoints import address
from marginal.entrypoints.engines import External
from marginal.entrypoints.processes import Program, Running, free_addresses, require_free, split_address
from marginal.errors import ConfigurationError
from marginal.models.catalogue import Pair
from marginal.settings.policy_file import policies_file
from marginal.telemetry.tracing import Exporter
from marginal.transport import model_servicer, router_servicer

ROUTER, SMALL, LARGE = "router", "small-model", "large-model"

LOCK_FILE = "up.lock"
STATE_FILE = "thresholds.json"
JOURNAL = "journal"
POLICIES_FILE = "policies.toml"
"""The policies as they ran, kept in the state directory."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start, and where everything it writes goes; addresses of None are chosen by the system.

    A tier with an engine of the user's own stands in front of that instead of running its model of the pair.
    """

    pair: Pair
    listen: str
    small_listen: str | None
    large_listen: str | None
    policy_file: Path | None
    state_dir: Path
    exporter: Exporter
    otlp_endpoint: str | None
    admin_listen: str | None = None
    small_engine: External | None = None
    large_engine: External | None = None


def programs(plan: Plan) -> tuple[Program, Program, Program]:
    """The router, the small and the large model; port 0 is one the system chooses. Raises ConfigurationError."""
    spare = iter(free_addresses("127.0.0.1", 4))
    listen = _address(plan.listen, next(spare), option="--listen")
    small = _address(plan.small_listen, next(spare), option="--small-listen")
    large = _address(plan.large_listen, next(spare), option="--large-listen")
    admin = _address(plan.admin_listen, next(spare), option="--admin-listen")
    policy_file = ("--policy-file", str(plan.policy_file)) if plan.policy_file else ()
    tiers = ("--small", _reachable(small), "--large", _reachable(large))
    kept = ("--state-file", str(plan.state_dir / STATE_FILE), "--journal", str(plan.state_dir / JOURNAL))
    own = ("--admin-listen", admin, *kept)
    serves = f"policies of {plan.policy_file}" if plan.policy_file else "the bundled policies"
    return (
        _program(plan, ROUTER, router_servicer.SERVICE, listen, serves, (*tiers, *policy_file, *own), admin),
        _program(plan, SMALL, model_servicer.SERVICE, small, *_served(plan.pair.small, plan.small_engine)),
        _program(plan, LARGE, model_servicer.SERVICE, large, *_served(plan.pair.large, plan.large_engine)),
    )


@contextmanager
def prepared(state_dir: Path, policy_file: Path | None) -> Iterator[None]:
    """Makes the state directory, keeps the policies in it and holds it for us alone. Raises ConfigurationError."""
    policies = policies_file(policy_file)
    policies.parse(text := policies.text())
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / LOCK_FILE).open("w")
    except OSError as error:
        raise ConfigurationError(
            f"{state_dir} cannot be written ({(error.strerror or '').lower()}): name another with --state-dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"{state_dir} is in use by another `marginal up`: end it, or name another with --state-dir"
            ) from None
        (state_dir / POLICIES_FILE).write_text(text, "utf-8")
        yield


def services_table(running: Sequence[Running]) -> Table:
    """Service, program, address, what it serves, process id."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("service", "program", "address", "serves"):
        table.add_column(heading, overflow="fold")
    table.add_column("pid", justify="right", no_wrap=True)
    for one in running:
        program = one.program
        table.add_row(program.name, program.script, program.address, program.serves, str(one.pid))
    return table


def services_as_json(running: Sequence[Running], state_dir: Path) -> dict[str, object]:
    """The table as plain values."""
    services = [
        {
            "service": one.program.name,
            "program": one.program.script,
            "address": one.program.address,
            "serves": one.program.serves,
            "pid": one.pid,
            "log": str(one.program.log_path),
            **({"admin": one.program.admin} if one.program.admin else {}),
        }
        for one in running
    ]
    return {"services": services, "state_dir": str(state_dir)}


def _served(model: str, engine: External | None) -> tuple[str, tuple[str, ...]]:
    """What a tier serves, in words and as the options of its program."""
    if engine is None:
        return model, ("--model", model)
    arguments = ("--engine", engine.kind.value, *(word for url in engine.urls for word in ("--endpoint", url)))
    if engine.model is not None:
        arguments += ("--engine-model", engine.model)
    if engine.api_key_file is not None:
        arguments += ("--api-key-file", str(engine.api_key_file))
    named = f"{engine.model} of " if engine.model else ""
    return f"{named}{engine.kind.value} at {', '.join(map(address, engine.urls))}", arguments


def _address(wanted: str | None, spare: str, *, option: str) -> str:
    if wanted is None:
        return spare
    host, port = split_address(wanted, option=option)
    address = wanted if port else f"{host}:{spare.rpartition(':')[2]}"
    require_free(address, option=option)
    return address


def _program(
    plan: Plan, name: str, service: str, address: str, serves: str, arguments: tuple[str, ...], admin: str = ""
) -> Program:
    no_metrics = ("--metrics-listen", "")  # the environment's address would be one for three programs
    tracing: tuple[str, ...] = ("--trace-exporter", plan.exporter.value, *no_metrics)
    if plan.exporter is Exporter.FILE:
        tracing += ("--trace-file", str(plan.state_dir / f"{name}.spans.jsonl"))
    if plan.otlp_endpoint:
        tracing += ("--otlp-endpoint", plan.otlp_endpoint)
    return Program(
        name=name,
        script=f"marginal-{name}",
        service=service,
        address=address,
        target=_reachable(address),
        serves=serves,
        arguments=("--listen", address, *arguments, *tracing),
        state_dir=plan.state_dir,
        admin=_reachable(admin),
    )


def _reachable(address: str) -> str:
    """Where to call a server that may listen on every interface."""
    host, _, port = address.rpartition(":")
    return {"0.0.0.0": f"127.0.0.1:{port}", "[::]": f"[::1]:{port}"}.get(host, address)  # noqa: S104 (compares only)
