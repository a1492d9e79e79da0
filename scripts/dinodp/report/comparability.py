"""Is a run the published one in its data and its weights? Where it is not, its values are compared with no verdict."""

from collections.abc import Iterator, Mapping
from typing import Any

from dinodp.options.protocol import PUBLISHED_BACKBONES, Protocol

# deviations that BMAD itself has: LiTS patients in valid and test, slices that are the same
AS_PUBLISHED = ("subject_in_two_splits", "identical_within_split")


def unlike_published(config: Mapping[str, Any], dataset: str, protocol: Protocol) -> list[str]:
    """In what a run's (``config``) data and weights are not the published ones, each in a few words."""
    embedding = config["embeddings"][protocol.published_embedding]
    return [*_of_data(config["datasets"][dataset]), *_of_weights(embedding, protocol.published_as)]


def _of_data(entry: Mapping[str, Any]) -> Iterator[str]:
    if not (entry.get("expect") or {}).get("counts"):
        yield "images are not compared with the published counts"
    if accepted := [name for name in entry.get("accept") or () if name not in AS_PUBLISHED]:
        yield f"accepted deviations of the data: {', '.join(accepted)}"


def _of_weights(embedding: Mapping[str, Any], published_as: str) -> Iterator[str]:
    there = PUBLISHED_BACKBONES.get(published_as)
    if there is None:
        yield f"it is not known which weights the published {published_as} is"
        return
    if embedding["backbone"] != there.backbone:
        yield f"weights of {embedding['backbone']} (there: {there.backbone})"
    elif not embedding.get("revision"):
        yield f"no pinned revision of {there.backbone}"
    for key, otherwise in (("resolution", None), ("square", False), ("interpolation", "bicubic")):
        here = embedding.get(key, otherwise)
        if here != getattr(there, key):
            yield f"{key} {_word(here)} (there: {_word(getattr(there, key))})"
    if tuple(embedding.get("layers") or there.layers) != there.layers:
        yield f"layers {', '.join(map(str, embedding['layers']))} (there: the last)"


def _word(value: object) -> str:
    return str(value).lower()
