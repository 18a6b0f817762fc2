"""Writes container images as one tar that docker, containerd, kind and podman load: an OCI layout with Docker's index.

The same layers and configuration give the same bytes, whenever and by whomever they are written.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO

EPOCH = "1970-01-01T00:00:00Z"

CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Image:
    """What a container of the image is started with; `platform` is an architecture as Go names them."""

    name: str
    platform: str
    user: str
    entrypoint: Sequence[str]
    environment: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "SIGTERM"

    @property
    def full_name(self) -> str:
        """The name with its registry, as containerd keeps it: `marginal/router:dev` is of docker.io."""
        first, slash, _ = self.name.partition("/")
        if not slash:
            return f"docker.io/library/{self.name}"
        return self.name if "." in first or ":" in first or first == "localhost" else f"docker.io/{self.name}"


def write_layer(out: Path, root: Path, owners: Mapping[str, int] = MappingProxyType({})) -> None:
    """Writes what is under `root` as a layer: sorted, without times, users or groups of this machine.

    Everything is the root user's but what `owners` gives to another, user and group of one number.
    """
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as layer:
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            layer.add(path, name, recursive=False, filter=partial(anonymous, owner=owners.get(name, 0)))


def anonymous(entry: tarfile.TarInfo, owner: int = 0) -> tarfile.TarInfo:
    """The entry as everybody would write it: modes say who may execute or use it, and nothing else of this machine."""
    entry.uid = entry.gid = owner
    entry.uname = entry.gname = ""
    entry.mtime = 0
    entry.pax_headers = {}
    sticky = entry.mode & 0o1000
    if not entry.issym():
        entry.mode = 0o1777 if sticky else 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def write_image(out: Path, image: Image, layers: Sequence[Path]) -> str:
    """Writes the image of uncompressed layer tars, the lowest first, and returns the manifest's digest."""
    digests = [_digest(layer) for layer in layers]
    config = _json(configuration(image, digests))
    described = [
        _descriptor(LAYER, digest, layer.stat().st_size) for digest, layer in zip(digests, layers, strict=True)
    ]
    manifest = _json({"schemaVersion": 2, "mediaType": MANIFEST, "config": _of(CONFIG, config), "layers": described})
    named = {"io.containerd.image.name": image.full_name, "org.opencontainers.image.ref.name": _tag(image.name)}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**_of(MANIFEST, manifest), "annotations": named}]}
    docker = {"Config": _blob(config), "RepoTags": [image.name], "Layers": [_path(digest) for digest in digests]}
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json(index))
        _add(archive, "manifest.json", _json([docker]))
        for content in (config, manifest):
            _add(archive, _blob(content), content)
        for digest, layer in dict(zip(digests, layers, strict=True)).items():
            with layer.open("rb") as opened:
                _add_stream(archive, _path(digest), opened, layer.stat().st_size)
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def configuration(image: Image, layer_digests: Sequence[str]) -> dict[str, object]:
    """The image's configuration as OCI words it."""
    return {
        "created": EPOCH,
        "architecture": image.platform,
        "os": "linux",
        "config": {
            "User": image.user,
            "Env": [f"{name}={value}" for name, value in image.environment.items()],
            "Entrypoint": list(image.entrypoint),
            "WorkingDir": "/",
            "Labels": dict(image.labels),
            "StopSignal": image.stop_signal,
        },
        "rootfs": {"type": "layers", "diff_ids": list(layer_digests)},
        "history": [{"created": EPOCH, "created_by": "deploy/docker/rootfs"} for _ in layer_digests],
    }


def _tag(name: str) -> str:
    return name.rpartition("/")[2].partition(":")[2] or "latest"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"


def _descriptor(media: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media, "digest": digest, "size": size}


def _of(media: str, content: bytes) -> dict[str, object]:
    return _descriptor(media, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _blob(content: bytes) -> str:
    return _path(f"sha256:{hashlib.sha256(content).hexdigest()}")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    _add_stream(archive, name, io.BytesIO(content), len(content))


def _add_stream(archive: tarfile.TarFile, name: str, stream: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    archive.addfile(entry, stream)
