"""Frozen backbones: an image goes in, one vector per patch comes out. One file per family, which is found by itself: a
subclass of `EmbeddingOptions` that says which backbones it ``serves``. Free of torch until one is loaded.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from dinodp.backbones.base import Backbone, EmbeddingOptions
from dinodp.errors import InputError
from dinodp.options.finding import kinds_in

__all__ = ["BACKBONES", "Backbone", "EmbeddingOptions", "embedding_options", "load_backbone"]


def _backbones() -> dict[str, type[EmbeddingOptions]]:
    kinds = kinds_in(__name__, pkgutil.iter_modules(__path__), EmbeddingOptions, r"class \w+\(EmbeddingOptions\)")
    return {kind.__module__.rpartition(".")[2]: kind for kind in sorted(kinds, key=lambda kind: kind.IS_FALLBACK)}


BACKBONES = _backbones()  # by the name of the file; the one that serves whatever no other does is the last


def embedding_options(entry: Mapping[str, Any], where: str = "The embedding") -> EmbeddingOptions:
    """The options of an embedding's catalog entry. Raises InputError, beginning with ``where``."""
    return _kind_of(entry, where).read(entry, where)


def _kind_of(entry: Mapping[str, Any], where: str) -> type[EmbeddingOptions]:
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: {entry!r} is no mapping of keys to values.")
    name = entry.get("backbone")
    if not isinstance(name, str):
        raise InputError(f"{where}.backbone: it must be `classical`, a hub name or a directory, not {name!r}.")
    return next(kind for kind in BACKBONES.values() if kind.serves(name))


def load_backbone(
    name_or_path: str,
    *,
    revision: str | None = None,
    resolution: int | None = None,
    layers: Sequence[int] | None = None,
    dtype: str | None = None,
    engine: str | None = None,
    device: str = "cpu",
    square: bool | None = None,
    download: bool = True,
) -> Backbone:
    """Load a frozen backbone for inference; what is None is the default of its options.

    ``name_or_path`` is ``classical``, a local directory in Hugging Face format, or a name on the Hugging Face hub (then
    ``revision`` is a commit, tag or branch). ``resolution`` is the length of the short side after resizing, or of both
    with ``square``. ``layers`` counts blocks from 1, or from the end with -1 the last. ``engine`` is ``torch``,
    ``openvino``, or ``auto``: the fastest on the device that loses nothing.
    ``device``: as `base.torch_device` has it. Without ``download`` the network is not asked.

    Raises InputError, in one sentence, for anything that cannot be had: see the families.
    """
    entry = {
        "backbone": str(name_or_path),
        "revision": revision,
        "resolution": resolution,
        "layers": None if layers is None else list(layers),
        "dtype": dtype,
        "square": square,
    }
    where = f"The backbone {name_or_path}"
    if engine == "auto":
        entry |= _kind_of(entry, where).fastest(device)
    elif engine not in (None, "torch"):  # which is the default of those that have the choice
        entry["engine"] = engine
    options = embedding_options(entry, where)
    options.check(where)
    return options.load(device) if download else options.load_local(device)
