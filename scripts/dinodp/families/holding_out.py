"""Training images held out where there are no validation images: whole subjects, or what lies together of one."""

from collections.abc import Sequence

import torch

from dinodp.families.base import Source

SHARE = 0.2


class Part:
    """Some images of a source."""

    def __init__(self, source: Source, images: Sequence[int]) -> None:
        self._source, self._images = source, list(images)
        self.n_images, self.n_patches, self.dim = len(self._images), source.n_patches, source.dim

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """As of the source."""
        return self._source.read([self._images[index] for index in indices])

    def count(self, images: Sequence[int]) -> int:
        """Number of embeddings of these images."""
        return self._source.count([self._images[index] for index in images])


def held_out(source: Source, generator: torch.Generator) -> tuple[Part, Part]:
    """The images to fit, and those of a fifth of the subjects (at least one, not all).

    Of one subject: a fifth of its images that follow each other, for neighbouring slices are nearly the same.
    """
    subjects = subjects_of(source)
    distinct = sorted(set(subjects))
    if len(distinct) > 1:
        order = torch.randperm(len(distinct), generator=generator)[: _share(len(distinct))].tolist()
        chosen = {distinct[index] for index in order}
        held = [image for image, subject in enumerate(subjects) if subject in chosen]
    else:
        count = _share(len(subjects))
        first = int(torch.randint(len(subjects) - count + 1, (1,), generator=generator))
        held = list(range(first, first + count))
    others = sorted(set(range(len(subjects))) - set(held))
    return Part(source, others), Part(source, held)


def subjects_of(source: Source) -> list[str]:
    """Whose each image is; where a source does not know it, every image is a subject of its own."""
    known: Sequence[str] | None = getattr(source, "subjects", None)
    return [str(index) for index in range(source.n_images)] if known is None else list(known)


def _share(n: int) -> int:
    """A fifth of n, at least one, but not all."""
    return min(max(1, round(SHARE * n)), n - 1)
