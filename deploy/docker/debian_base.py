"""The lowest layer of an image: Debian's Python and the libraries it needs; no shell, no package manager that runs."""

import shutil
import subprocess
import tarfile
from pathlib import Path

SUITE = "bookworm"
PYTHON_VERSION = "3.11.2"
"""The suite's, as long as it lives; some packages are wanted below a certain version only."""

PACKAGES = ("ca-certificates", "libgomp1", "libpython3-stdlib", "libstdc++6", "netbase", "python3-minimal", "tzdata")
UNUSED = (
    *("bin", "dev", "run", "sbin", "usr/sbin", "usr/include", "usr/lib/apt", "usr/lib/dpkg"),
    *(f"etc/{name}" for name in ("alternatives", "apt", "cron.daily", "debconf.conf", "dpkg", "logrotate.d", "rmt")),
    *(f"etc/{name}" for name in ("fstab", "hostname", "resolv.conf")),
    *(f"usr/share/{name}" for name in ("bash-completion", "debconf", "doc-base", "info", "lintian", "locale", "man")),
    *("usr/share/perl5", "usr/share/python3", "usr/lib/python3.11/pydoc_data"),
    *(f"var/{name}" for name in ("cache", "lib/apt", "lib/dpkg", "log")),
)
"""Of packages that are only there to install others, and of this machine; every copyright stays."""

ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnonroot:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


class CannotBuild(Exception):
    """What is missing on this machine, in a sentence."""


def unpack_base(tar: Path, root: Path) -> None:
    """Lays what a container needs of the packages under the empty `root`."""
    with tarfile.open(tar) as packages:
        packages.extraction_filter = lambda entry, _: entry  # an argument would be more than Debian's own Python takes
        packages.extractall(root, [entry for entry in packages if not entry.isdev()])  # noqa: S202 (signed packages)
    for name in UNUSED:
        _remove(root / name)
    for path in [*(root / "usr/bin").iterdir(), *(root / "usr/share/doc").rglob("*")]:
        if not path.is_dir() and not path.name.startswith("python3") and path.name != "copyright":
            path.unlink()
    for name, content in ACCOUNTS.items():
        (root / name).write_text(content)
    _trust(root)
    for name in ("dev", "proc", "run", "sys", "tmp", "etc/marginal", "var/lib/marginal"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)


def fetch_base(tar: Path) -> None:
    """Downloads the packages with mmdebstrap, which checks Debian's signatures and, to unpack alone, needs no root.

    Raises CannotBuild.
    """
    program = shutil.which("mmdebstrap")
    if program is None:
        raise CannotBuild("mmdebstrap is not installed: apt-get install mmdebstrap, or build with a container builder")
    tar.parent.mkdir(parents=True, exist_ok=True)
    partial = tar.with_suffix(".partial.tar")
    how = ("--quiet", "--mode=chrootless", "--variant=extract", f"--include={','.join(PACKAGES)}")
    done = subprocess.run([program, *how, SUITE, str(partial)], check=False)  # noqa: S603
    if done.returncode:
        raise CannotBuild("mmdebstrap could not fetch Debian's packages, see above")
    partial.rename(tar)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _trust(root: Path) -> None:
    """Joins the certificates as update-ca-certificates would, which needs a shell."""
    found = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(f"{one.read_text().strip()}\n" for one in found))
