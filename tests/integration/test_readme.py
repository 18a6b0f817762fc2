"""What the README tells a newcomer to type works as it stands there."""

import asyncio
import re
import sys
from pathlib import Path

from typer.testing import CliRunner

from integration.processes import deployed
from marginal.entrypoints.model import program
from marginal.entrypoints.router import app
from marginal.tokens import Tier

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


async def test_the_python_client_gets_the_answer_it_shows(tmp_path: Path) -> None:
    shown = re.search(r"```python\n.*?```\n\n```\n(.*?)\n```", README, re.DOTALL)
    assert shown is not None
    async with deployed(tmp_path, small="home-small", large="home-large") as services:
        client = block("python").replace("127.0.0.1:50051", services.target)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", client, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
    answer, tier, _ = output.decode().strip().split(" · ")
    assert shown[1].startswith(f"{answer} · {tier} · ")
    assert "TIER_LARGE" in tier


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README


def test_the_services_table_names_the_programs_and_their_ports() -> None:
    programs = {"router": app, "small-model": program(Tier.SMALL), "large-model": program(Tier.LARGE)}
    for name, typer_app in programs.items():
        port = re.search(rf"`marginal-{name}` \| (\d+)", README)
        assert port is not None
        usage = CliRunner().invoke(typer_app, ["--help"], env={"COLUMNS": "200"}).output
        assert f"127.0.0.1:{port[1]}" in usage
