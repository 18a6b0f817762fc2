"""Turns the name of a model into a file on this machine, fetching and checking it when it is on the model hub."""

import functools
import hashlib
import sys
from pathlib import Path
from typing import Any, TextIO, cast

from marginal.errors import ModelNotFetched
from marginal.models.catalogue import BundledFile, HubFile, hub_file, models
from marginal.models.progress import Bar, Lines


def resolve(
    name: str, *, endpoint: str | None = None, cache: Path | None = None, progress: TextIO | None = None
) -> Path:
    """Gives the file of a model: a name of the catalogue, a path, or `hub:owner/repo@revision/file.gguf#sha256`.

    `endpoint` and `cache` are the hub's address and the directory fetched files are kept in, by default those of
    `huggingface_hub` (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and HF_TOKEN are honoured). `progress`, by default standard
    error, shows a bar on a terminal, elsewhere a line now and then. A file once fetched is used without any request;
    its SHA-256 is checked every time. Raises ModelNotFetched saying what to do, ConfigurationError for a bad name.
    """
    source = models().get(name)
    if source is None:
        source = hub_file(name) if name.startswith("hub:") else BundledFile(Path(name).expanduser())
    if isinstance(source, HubFile):
        return _fetched(source, endpoint=endpoint, cache=cache, progress=progress or sys.stderr)
    if not source.path.is_file():
        if name in models():
            raise ModelNotFetched(f"model: {name} is missing from this installation, install it again")
        raise ModelNotFetched(
            f"model: {name} is no file here and not in the catalogue ({', '.join(models())}):"
            " give one of these names, a path, or hub:owner/repo@revision/file.gguf#sha256"
        )
    return source.path


def _fetched(source: HubFile, *, endpoint: str | None, cache: Path | None, progress: TextIO) -> Path:
    from huggingface_hub import try_to_load_from_cache  # slow to import, and needed for models on the hub only

    found = try_to_load_from_cache(source.repository, source.file, cache_dir=cache, revision=source.revision)
    path = Path(found) if isinstance(found, str) else _downloaded(source, endpoint, cache, progress)
    _check(path, source)
    return path


def _downloaded(source: HubFile, endpoint: str | None, cache: Path | None, progress: TextIO) -> Path:
    import httpx2
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    shown = functools.partial(Bar if progress.isatty() else Lines, progress, source.file)
    url = hf_hub_url(source.repository, source.file, revision=source.revision, endpoint=endpoint)
    try:
        # asked first because the download itself would try a hub that is not there for half a minute
        get_hf_file_metadata(url, endpoint=endpoint)
        path = hf_hub_download(
            source.repository,
            source.file,
            revision=source.revision,
            endpoint=endpoint,
            cache_dir=cache,
            tqdm_class=cast("Any", shown),
        )
    except HfHubHTTPError as error:
        raise _missing(source, _refusal(error)) from error
    except OfflineModeIsEnabled as error:
        raise _missing(source, "HF_HUB_OFFLINE is set and the file is not in the cache") from error
    except (httpx2.HTTPError, LocalEntryNotFoundError) as error:
        raise _missing(source, "the hub cannot be reached, or the connection broke too often") from error
    except OSError as error:
        raise _missing(source, f"it cannot be stored ({error.strerror or type(error).__name__})") from error
    return Path(path)


def _refusal(error: Any) -> str:
    """Says in our words what the hub's status means; its own text may hold addresses with secrets."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "its owner wants an agreement first: accept it on the hub and set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, RemoteEntryNotFoundError):
        return "the repository has no such file at this revision"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private and HF_TOKEN is not set"
    return f"the hub refused it with status {error.response.status_code}"


def _missing(source: HubFile, why: str) -> ModelNotFetched:
    return ModelNotFetched(
        f"model: {source.file} of {source.repository} at {source.revision} could not be fetched: {why}."
        " Check the name; or download the file on a machine that can, copy it here and give its path as the model."
    )


def _check(path: Path, source: HubFile) -> None:
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual == source.sha256:
        return
    blob = path.resolve()
    path.unlink()
    blob.unlink(missing_ok=True)
    raise ModelNotFetched(
        f"model: {source.file} of {source.repository} has another content than its name says, and was removed:"
        f" expected SHA-256 {source.sha256}, actual {actual}. Fetch it again, or correct the hash if you trust it."
    )
