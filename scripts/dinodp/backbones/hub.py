"""Weights on the Hugging Face hub, and what its client keeps of them on this machine. Free of torch."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # the hub's client reads it when it is imported
import huggingface_hub
import huggingface_hub.utils

from dinodp.backbones.directory import read_json, require_files
from dinodp.errors import InputError

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
CONFIGURATION = ("config.json", "preprocessor_config.json", "model.safetensors.index.json")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin*")  # pickled ones, and their index, only where there are no safetensors


@dataclass(frozen=True)
class Offer:
    """What the hub has of a repository: the files wanted of it, at ``commit``; ``missing`` are the bytes to fetch."""

    commit: str
    size: int
    missing: int


def fetch(name: str, revision: str | None, cache: Path | None = None) -> Path:
    """Fetch configuration and weights into the hub's cache; a broken download is resumed by the next call.

    Raises InputError where they cannot be had.
    """
    with _told(name, revision):
        return _snapshot(name, revision, cache)


def offered(name: str, revision: str | None, cache: Path) -> Offer:
    """What `fetch` would take from the hub. Raises InputError where it cannot be asked or has no weights."""
    with _told(name, revision):
        for weights in WEIGHTS:
            files = _ask(name, revision, cache, weights, dry_run=True)
            if any(Path(file.filename).match(weights) for file in files):
                missing = sum(file.file_size or 0 for file in files if file.will_download)
                return Offer(files[0].commit_hash, sum(file.file_size or 0 for file in files), missing)
    raise InputError(f"The backbone {name} has no weights on the Hugging Face hub ({' or '.join(WEIGHTS)}).")


def cached(name: str, revision: str | None, cache: Path | None = None) -> Path:
    """What an earlier download has left in the hub's cache, whole. Raises InputError for anything else."""
    try:
        with quiet():
            return _snapshot(name, revision, cache, local_files_only=True)
    except Exception as error:  # the hub's client raises errors of several libraries
        with_revision = f" --revision {revision}" if revision else ""
        raise InputError(
            f"The backbone {name} (revision {revision or 'main'}) is not on this machine, and a model file alone does "
            f"not send dinodp to the network: allow the download with `--backbone {name}`, or make it with "
            f"`hf download {name}{with_revision}`."
        ) from error


def require_whole(snapshot: Path) -> None:
    """Raise InputError for a snapshot without configuration, weights, or a part of weights in several files."""
    require_files(snapshot)
    for index in snapshot.glob("*.index.json"):
        for part in sorted(set(read_json(index).get("weight_map", {}).values())):
            if not (snapshot / part).is_file():
                raise InputError(f"The backbone directory {snapshot} lacks {part}, a part of its weights.")


def _snapshot(name: str, revision: str | None, cache: Path | None, **options: Any) -> Path:
    for weights in WEIGHTS:
        snapshot = Path(_ask(name, revision, cache, weights, **options))
        if any(snapshot.glob(weights)):
            break
    return snapshot


def _ask(name: str, revision: str | None, cache: Path | None, weights: str, **options: Any) -> Any:
    wanted: dict[str, Any] = {"allow_patterns": [*CONFIGURATION, weights], "ignore_patterns": ["*/*"]}
    return huggingface_hub.snapshot_download(repo_id=name, revision=revision, cache_dir=cache, **wanted, **options)


@contextmanager
def _told(name: str, revision: str | None) -> Iterator[None]:
    try:
        with quiet():
            yield
    except InputError:
        raise
    except Exception as error:  # the hub's client raises errors of several libraries
        raise InputError(_advice(name, revision, error)) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the messages and progress bars of the hub's client."""
    bars: Any = huggingface_hub.utils
    logs = [logging.getLogger(name) for name in ("huggingface_hub", "httpx", "httpx2")]
    levels, had_bars = [log.level for log in logs], not bars.are_progress_bars_disabled()
    for log in logs:
        log.setLevel(logging.ERROR)
    bars.disable_progress_bars()
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
        if had_bars:
            bars.enable_progress_bars()


def _advice(name: str, revision: str | None, error: Exception) -> str:
    wanted = f"{name} (revision {revision or 'main'})"
    with_revision = f" --revision {revision}" if revision else ""
    kind = type(error).__name__
    if kind in ("RepositoryNotFoundError", "GatedRepoError", "RevisionNotFoundError", "HFValidationError"):
        return (
            f"The backbone {wanted} is no local directory and the Hugging Face hub does not give it ({kind}): check "
            "name and revision, log in with `hf auth login` if access is restricted, or give a local directory."
        )
    return (
        f"The backbone {wanted} is no local directory, is not in the cache, and the Hugging Face hub cannot be reached "
        f"({kind}): download it beforehand with `hf download {name}{with_revision}` where there is a network and set "
        "HF_HUB_OFFLINE=1 here, give a local directory, or use `classical`, which needs no download."
    )
