"""Progress of a long computation on disk: it goes on under the same key only, and from a whole file only."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dinodp.jobs.files import replaced_file
from dinodp.jobs.logs import logger


class Checkpoint(NamedTuple):
    """Where progress is noted, and a digest of all that decides the result."""

    path: Path
    key: str

    def save(self, content: Mapping[str, Any], *, synced: bool = False) -> None:
        """Replace what is there. Without ``synced`` a power cut may leave a damaged file, which `load` finds."""
        with replaced_file(self.path, synced=synced) as temporary:
            torch.save({**content, "key": self.key, "sha256": _digest(dict(content))}, temporary)

    def load(self) -> dict[str, Any] | None:
        """What was saved; None where nothing was, or it is damaged or of another computation, which the log says."""
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            key, digest = content.pop("key"), content.pop("sha256")
            whole = digest == _digest(content)
        except Exception:  # torch raises many kinds for damaged files
            key, whole, content = "", False, {}
        if key == self.key and whole:
            return dict(content)
        reason = "it is of other options, data or code" if whole else "it is damaged"
        logger.info("Drop the checkpoint %s, %s: the fit starts anew.", self.path, reason)
        return None


def _digest(content: Any) -> str:
    """SHA-256 of nested mappings and lists of arrays, tensors and numbers."""
    found = hashlib.sha256()
    for part in _parts(content):
        found.update(part)
    return found.hexdigest()


def _parts(content: Any) -> Iterator[bytes | memoryview]:
    if isinstance(content, dict):
        for name in sorted(content, key=str):
            yield str(name).encode()
            yield from _parts(content[name])
    elif isinstance(content, torch.Tensor | np.ndarray):
        values = np.ascontiguousarray(content.cpu() if isinstance(content, torch.Tensor) else content)
        yield f"{values.dtype} {values.shape}".encode()
        yield values.reshape(-1).view(np.uint8).data
    else:
        yield repr(content).encode()
