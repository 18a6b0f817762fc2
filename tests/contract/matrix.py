"""`python -m tests.contract.matrix`: every backend against every promise and every fault, as two tables.

A cell of the second table is what the caller saw, and the record's output tokens less those that the engine sent. Ends
with 1 when anything is not as promised; `--json` gives the same to programs.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "services")]

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from contract.fault_cases import CASES, ESTIMATED, rules, wrong  # noqa: E402
from contract.faulty import BACKENDS  # noqa: E402

WIDTH = 200


@dataclass(frozen=True)
class Cell:
    """One promise or fault on one backend; `wrong` is empty where it is kept."""

    backend: str
    row: str
    says: str
    wrong: tuple[str, ...] = ()


def promises() -> list[Cell]:
    """Runs the contract of language models, in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        subprocess.run(  # noqa: S603
            [
                *(sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "-q", "-p", "no:cacheprovider"),
                *("tests/contract/test_language_model.py", f"--junitxml={report}"),
            ],
            cwd=TESTS.parent,
            stdout=subprocess.DEVNULL,
            env=os.environ,
            check=False,
        )
        found = ET.parse(report).iter("testcase")  # noqa: S314
        return sorted(map(_promise, found), key=lambda cell: cell.row)


def _promise(test: ET.Element) -> Cell:
    name, _, backend = test.attrib["name"].rstrip("]").partition("[")
    row = name.removeprefix("test_").replace("_", " ")
    parameter, dash, rest = backend.rpartition("-")
    if dash and rest.isdecimal():
        backend, row = parameter, f"{row} ({rest})"
    failed = tuple(str(each.get("message")).splitlines()[0] for each in test if each.tag in ("failure", "error"))
    return Cell(backend, row, "✗" if failed else "✓", failed)


async def faults() -> list[Cell]:
    """Runs every fault through every backend."""
    cells: list[Cell] = []
    for name, backend in BACKENDS.items():
        for case in CASES:
            seen = await case.run(backend)
            mark = "¹" if ESTIMATED in rules(case, backend) else ""
            says = f"{_short(seen.outcome)} {seen.difference}{mark}"
            cells.append(Cell(name, case.name, says, tuple(wrong(case, backend, seen))))
    return cells


def _short(outcome: str) -> str:
    answer, _, degraded = outcome.partition(", degraded: ")
    return f"{answer.removesuffix(' answer')}{' (degraded)' if degraded else ''}"


def table(title: str, cells: list[Cell]) -> Table:
    """Backends are columns, what is promised are rows."""
    backends = list(dict.fromkeys(cell.backend for cell in cells))
    rows: dict[str, dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        rows[cell.row][cell.backend] = cell
    drawn = Table("", *backends, title=title, title_justify="left")
    for row, by_backend in rows.items():
        found = (by_backend.get(backend) for backend in backends)
        drawn.add_row(row, *("" if cell is None else _coloured(cell) for cell in found))
    return drawn


def _coloured(cell: Cell) -> str:
    return f"[red]{cell.says}[/]" if cell.wrong else f"[green]{cell.says}[/]"


def main() -> int:
    """Gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.matrix", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=("promises", "faults"))
    given = parser.parse_args()
    kept = [] if given.only == "faults" else promises()
    shown = [] if given.only == "promises" else asyncio.run(faults())
    red = [cell for cell in (*kept, *shown) if cell.wrong]
    if given.json:
        cells = {"promises": kept, "faults": shown}
        print(json.dumps({name: [vars(cell) for cell in each] for name, each in cells.items()}, indent=2))  # noqa: T201
        return int(bool(red))
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if kept:
        console.print(table(f"{len(kept)} promises: {len([cell for cell in kept if cell.wrong])} broken", kept))
    if shown:
        console.print(
            table(f"{len(shown)} faults: {len([cell for cell in shown if cell.wrong])} not as promised", shown)
        )
        console.print("Numbers: output tokens of the record less those sent.")
        console.print(f"¹ {ESTIMATED}.")
    for cell in red:
        console.print(f"[red]{cell.backend}: {cell.row}[/]: {'; '.join(cell.wrong)}")
    return int(bool(red))


if __name__ == "__main__":
    sys.exit(main())
