"""A tar written by `deploy/docker/rootfs`: what every loader of images must find in it, the same bytes every time."""

import hashlib
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from image_archive import Image, write_image, write_layer

IMAGE = Image(
    name="marginal/router:dev",
    platform="amd64",
    user="65532:65532",
    entrypoint=["marginal-router"],
    environment={"PATH": "/opt/marginal/bin:/usr/bin", "HOME": "/nowhere"},
    labels={"org.opencontainers.image.title": "Marginal router"},
)


def files(root: Path, names: Sequence[str], *, written: float) -> Path:
    """A folder with some files in it, written in this order and at this time."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}")
        os.utime(path, (written, written))
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "python3").symlink_to("/usr/bin/python3.11")
    (root / names[-1]).chmod(0o700 if names[-1].startswith("bin/") else 0o600)
    return root


def image(folder: Path, root: Path) -> Path:
    folder.mkdir()
    write_layer(folder / "layer.tar", root, {"tmp": 65532})
    write_image(folder / "image.tar", IMAGE, [folder / "layer.tar"])
    return folder / "image.tar"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return image(tmp_path / "out", files(tmp_path / "root", ["lib/a.py", "bin/program"], written=1))


def read(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as opened:
        found = opened.extractfile(name)
        assert found is not None
        return found.read()


def blob(archive: Path, digest: str) -> bytes:
    content = read(archive, f"blobs/{digest.replace(':', '/')}")
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
    return content


def test_the_same_files_give_the_same_bytes_whenever_and_in_whatever_order_they_were_written(tmp_path: Path) -> None:
    one = image(tmp_path / "one", files(tmp_path / "a", ["lib/a.py", "lib/b.py", "bin/program"], written=1))
    other = image(tmp_path / "other", files(tmp_path / "b", ["lib/b.py", "lib/a.py", "bin/program"], written=2e9))
    assert one.read_bytes() == other.read_bytes()


def test_another_file_gives_another_image(tmp_path: Path, written: Path) -> None:
    other = image(tmp_path / "other", files(tmp_path / "b", ["lib/b.py", "bin/program"], written=1))
    assert other.read_bytes() != written.read_bytes()


def test_a_layer_keeps_who_may_execute_and_nothing_of_the_machine_it_was_written_on(written: Path) -> None:
    with tarfile.open(written.parent / "layer.tar") as layer:
        entries = {entry.name: entry for entry in layer}
    assert list(entries) == sorted(entries)
    assert {(entry.mtime, entry.uname, entry.gname) for entry in entries.values()} == {(0, "", "")}
    assert oct(entries["bin/program"].mode) == "0o755"
    assert oct(entries["lib/a.py"].mode) == "0o644"
    assert entries["python3"].linkname == "/usr/bin/python3.11"


def test_everything_is_owned_by_root_but_what_programs_write_to(written: Path) -> None:
    with tarfile.open(written.parent / "layer.tar") as layer:
        owners = {entry.name: (entry.uid, entry.gid, oct(entry.mode)) for entry in layer}
    assert owners.pop("tmp") == (65532, 65532, "0o1777")
    assert {(user, group) for user, group, _ in owners.values()} == {(0, 0)}


def test_containerd_and_docker_find_the_same_image_in_it(written: Path) -> None:
    index = json.loads(read(written, "index.json"))
    (named,) = index["manifests"]
    manifest = json.loads(blob(written, named["digest"]))
    (docker,) = json.loads(read(written, "manifest.json"))

    assert named["annotations"]["io.containerd.image.name"] == "docker.io/marginal/router:dev"
    assert docker["RepoTags"] == ["marginal/router:dev"]
    assert docker["Config"] == f"blobs/{manifest['config']['digest'].replace(':', '/')}"
    assert docker["Layers"] == [f"blobs/{layer['digest'].replace(':', '/')}" for layer in manifest["layers"]]
    for described in (named, manifest["config"], *manifest["layers"]):
        assert len(blob(written, described["digest"])) == described["size"]


def test_its_configuration_says_how_a_container_is_started(written: Path) -> None:
    (docker,) = json.loads(read(written, "manifest.json"))
    config = json.loads(read(written, docker["Config"]))
    assert config["config"] == {
        "User": "65532:65532",
        "Env": ["PATH=/opt/marginal/bin:/usr/bin", "HOME=/nowhere"],
        "Entrypoint": ["marginal-router"],
        "WorkingDir": "/",
        "Labels": {"org.opencontainers.image.title": "Marginal router"},
        "StopSignal": "SIGTERM",
    }
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert len(config["rootfs"]["diff_ids"]) == len(docker["Layers"])


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("marginal/router:dev", "docker.io/marginal/router:dev"),
        ("router:dev", "docker.io/library/router:dev"),
        ("registry.example/team/router:1", "registry.example/team/router:1"),
        ("localhost/router:1", "localhost/router:1"),
        ("registry:5000/router:1", "registry:5000/router:1"),
    ],
)
def test_it_is_named_as_kubernetes_will_ask_for_it(name: str, full: str) -> None:
    assert replace(IMAGE, name=name).full_name == full
