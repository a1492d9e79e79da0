"""Memory bank (AnomalyDINO): all training embeddings, those of a few images, or a coreset; searched, or looked up.

Selections and codes are made from embeddings that are read in chunks, within a stated memory, and a coreset that would
take too long is refused before it begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from dinodp.errors import InputError
from dinodp.families.base import IMAGES_PER_SHARD, FitTask, Fitted, ModelOptions, Source
from dinodp.families.soundness import Stored
from dinodp.jobs.logs import logger, progress
from dinodp.options.base import option
from dinodp.options.choices import BANK_SCORES

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp import models
    from dinodp.families.soundness import Layout
    from dinodp.models.inverted_file import InvertedFile
    from dinodp.store import Maps

BYTES_PER_GIB, BYTES_PER_MIB, MIB_PER_GIB = 2**30, 2**20, 2**10
BANK_MEMORY_GIB = 4.0  # of the host; a larger bank is streamed
CORESET_MEMORY_GIB = 4.0  # of embeddings in float32; a coreset of more is chosen from sketches of them
CORESET_HOURS, SECONDS_PER_HOUR = 24.0, 3600
SKETCH_DIMS = 128  # as many as PatchCore projects on
SKETCH_SLACK = 0.1  # of a sketch's distances: each chosen one is at least 0.9 times as far as the farthest
BESIDE_SKETCH_BYTES = 16  # of each embedding: its distance, and what sorting takes
OWN_SCANS_EMBEDDINGS = 20_000
UNIT = 1.001  # length of a unit vector, with rounding
GPU_MEMORY_SHARE = 0.5  # of what is free


class MemoryBankOptions(ModelOptions):
    """Memory bank; its file holds which images (or embeddings) are remembered, not the embeddings once more."""

    SCORES: ClassVar[tuple[str, ...]] = BANK_SCORES
    PAPER: ClassVar[Mapping[str, object]] = {}
    ANY_VALUE: ClassVar[frozenset[str]] = ModelOptions.ANY_VALUE | {"bank_memory_gib"}
    SEARCHES_TRAIN: ClassVar[bool] = True

    family: Literal["memory_bank"] = "memory_bank"
    shots: int | None = option(None, "Few-shot bank of this many training images.", ge=1)
    coreset_fraction: float | None = option(
        None, "Greedy k-center coreset of this share of the embeddings.", gt=0, le=1
    )
    coreset_memory_gib: float | None = option(
        None,
        "Embeddings that take more in float32 are not held for a coreset: it is chosen from their projections on "
        f"{SKETCH_DIMS} principal axes, of all or of as many, drawn, as fit; absent: {CORESET_MEMORY_GIB:g}.",
        unit="GiB",
        gt=0,
    )
    coreset_hours: float = option(
        CORESET_HOURS,
        "A coreset that is estimated to take longer on this machine is refused before it begins.",
        unit="hours",
        changes_result=False,
        gt=0,
    )
    max_embeddings: int | None = option(
        None, "Of the embeddings, draw about as many, equally many of each image (before a coreset).", ge=1
    )
    bank_memory_gib: float | None = option(
        None,
        "A larger memory bank is not held but streamed from its file for every 64 images, to the same scores; "
        f"absent: {BANK_MEMORY_GIB:g}, on a GPU half of its free memory.",
        unit="GiB",
        changes_result=False,
        gt=0,
    )
    search: Literal["exact", "ivfpq"] | None = option(
        None,
        "`ivfpq`: embeddings are known by a few bytes each, and only the nearest of many lists of them are searched, "
        "by the optional package faiss; absent: exact.",
    )
    lists: int | None = option(
        None, "Of `ivfpq`: lists of embeddings; absent: twice the square root of their number.", ge=1
    )
    probes: int | None = option(None, "Of `ivfpq`: lists that are searched for a patch; absent: 16.", ge=1)
    code_bytes: int | None = option(
        None, "Of `ivfpq`: bytes of an embedding, a divisor of its length; absent: a quarter of that.", ge=1
    )

    @model_validator(mode="after")
    def _is_indexed(self) -> Self:
        given = [name for name in ("lists", "probes", "code_bytes") if getattr(self, name) is not None]
        if given and not self._is_looked_up:
            raise ValueError(f"{', '.join(given)} belong to search: ivfpq, and the search is exact")
        return self

    @property
    def _is_looked_up(self) -> bool:
        return self.search == "ivfpq"

    @property
    def is_random(self) -> bool:
        """All training images, or a draw; what an index learns is drawn too."""
        drawn = (self.shots, self.coreset_fraction, self.max_embeddings)
        return self._is_looked_up or any(value is not None for value in drawn)

    def for_own_scans(self) -> dict[str, Any]:
        """A bank that would hold all is drawn: it is in the model file."""
        return {} if self.is_random else {"max_embeddings": OWN_SCANS_EMBEDDINGS}

    def fitting_mib(self, train_mib: float) -> float:
        """A coreset: training embeddings as float32 and once more to join them, or sketches; an index: its codes."""
        return super().fitting_mib(train_mib) + self._coreset_mib(train_mib) + self._codes_mib(train_mib)

    def scoring_mib(self, train_mib: float) -> float:
        """A bank is held up to ``bank_memory_gib``, a coreset and codes whole; both are there twice while loaded."""
        bank = MIB_PER_GIB * (self.bank_memory_gib or BANK_MEMORY_GIB)
        kept = 0.0 if self.coreset_fraction is None else 4 * train_mib * self.coreset_fraction
        return super().scoring_mib(train_mib) + bank + kept + self._codes_mib(train_mib)

    def _coreset_mib(self, train_mib: float) -> float:
        if self.coreset_fraction is None:
            return 0.0
        held, kept = 2 * train_mib, 2 * train_mib * self.coreset_fraction
        limit = self._coreset_bytes / BYTES_PER_MIB
        return 2 * held if held <= limit else limit + kept

    def _codes_mib(self, train_mib: float) -> float:
        """A code has at most one byte for each number of an embedding, float16 two; codes are there twice at times."""
        return train_mib if self._is_looked_up else 0.0

    @property
    def _coreset_bytes(self) -> float:
        return BYTES_PER_GIB * (self.coreset_memory_gib or CORESET_MEMORY_GIB)

    def fit(self, task: FitTask) -> Fitted:
        """Choose images (all, or ``shots`` of them) and of their embeddings all, a draw, or a coreset."""
        from dinodp.models import few_shot
        from dinodp.models.inverted_file import require_faiss

        train = task.train
        images = np.arange(train.n_images)
        if self.shots is not None:
            images = np.sort(few_shot(train.n_images, self.shots, task.generator))
        state: dict[str, Any] = {"images": images.astype(np.int64)}
        if self._is_looked_up:
            require_faiss()  # before hours are spent on a coreset
        chosen = self._choose(train, images.tolist(), task.generator)
        n_embeddings = train.count(images.tolist()) if chosen is None else len(chosen)
        size = _bytes(n_embeddings, train)
        if self._is_looked_up:
            state |= self._learn(train, images.tolist(), chosen, task.generator)
            size = sum(np.asarray(value).nbytes for value in state.values())
        elif chosen is not None:
            state["embeddings"] = chosen
        if task.self_contained and not self._is_looked_up:
            state["remembered"] = picked(train, images.tolist(), chosen).half().numpy()
        mib = size / BYTES_PER_MIB
        logger.info("Memory bank: %d embeddings of %d images, %.0f MiB.", n_embeddings, len(images), mib)
        return Fitted(state, {}, None, mib, n_embeddings)

    def _learn(
        self, train: Source, images: Sequence[int], chosen: npt.NDArray[np.int64] | None, generator: torch.Generator
    ) -> dict[str, Any]:
        """The arrays of an index of the embeddings of the images: all, or the chosen ones."""
        from dinodp.families.features import IMAGES_PER_READ, chunks
        from dinodp.models.inverted_file import learn_inverted_file, sample_size, usual_code_bytes, usual_lists

        count = train.count(images) if chosen is None else len(chosen)
        lists = self.lists or usual_lists(count)
        drawn = _some_of(train, images, chosen, sample_size(lists), generator)
        logger.info("Index: %d lists, learnt from %d of %d embeddings.", lists, len(drawn), count)
        parts = chunks(train, images) if chosen is None else chosen_chunks(train, images, np.sort(chosen))
        return learn_inverted_file(
            picked(train, images, drawn),
            progress(parts, "index", total=len(images), per_item=IMAGES_PER_READ),
            lists=lists,
            code_bytes=self.code_bytes or usual_code_bytes(train.dim),
            generator=generator,
        )

    def go_on(self, state: Mapping[str, Any], task: FitTask, n_before: int) -> Fitted:
        """As many embeddings as before, the new images with their share; what makes room is drawn from the old ones."""
        fixed = (self.shots, self.coreset_fraction, self.search)
        if any(value is not None for value in fixed) or self.max_embeddings is None:
            raise InputError(
                "A memory bank of a few shots, a coreset or an index cannot go on with new scans: fit again with all "
                "of them."
            )
        train, images = task.train, list(range(task.train.n_images))
        share = len(images) / (n_before + len(images))
        drawn = _drawn(train, images, max(1, round(share * self.max_embeddings)), task.generator)
        old = np.asarray(state["embeddings"])
        room = min(len(old), max(1, self.max_embeddings - len(drawn)))
        kept = np.sort(_permutation(len(old), task.generator)[:room])
        remembered = [np.asarray(state["remembered"])[kept], picked(train, images, drawn).half().numpy()]
        return Fitted(
            {
                "images": np.append(state["images"], int(np.max(state["images"])) + 1 + np.array(images)),
                "embeddings": np.append(old[kept], int(old.max()) + 1 + drawn),
                "remembered": np.concatenate(remembered),
            },
            {},
            None,
        )

    def _choose(
        self, train: Source, images: Sequence[int], generator: torch.Generator
    ) -> npt.NDArray[np.int64] | None:
        """Which of the embeddings of the images are remembered, numbered one image after the other; None: all."""
        from dinodp.models import coreset

        chosen = None if self.max_embeddings is None else _drawn(train, images, self.max_embeddings, generator)
        if self.coreset_fraction is None:
            return chosen
        m = train.count(images) if chosen is None else len(chosen)
        n = max(1, int(m * self.coreset_fraction))
        if _bytes(m, train) > self._coreset_bytes:
            return self._sketched_coreset(train, images, chosen, n, generator)
        self._require_affordable(n, m, train.dim, _bytes(2 * m, train))
        kept = coreset(picked(train, images, chosen), n, generator)
        return kept if chosen is None else chosen[kept]

    def _sketched_coreset(
        self,
        train: Source,
        images: Sequence[int],
        chosen: npt.NDArray[np.int64] | None,
        n: int,
        generator: torch.Generator,
    ) -> npt.NDArray[np.int64]:
        """``n`` of the embeddings, chosen by sketches in float16, which are those of a draw where all do not fit."""
        import torch

        from dinodp.models.k_center import farthest_first

        dims = min(SKETCH_DIMS, train.dim)
        each = 2 * dims + BESIDE_SKETCH_BYTES
        most = int(self._coreset_bytes / each)
        m = train.count(images) if chosen is None else len(chosen)
        if m > most:
            chosen = _some_of(train, images, chosen, most, generator)
            m = len(chosen)
        if n > m:
            raise InputError(
                f"A coreset of {n} embeddings is to be chosen from {m}, for no more fit into coreset_memory_gib: a "
                "smaller coreset_fraction or more memory."
            )
        self._require_affordable(n, m, dims, each * m)
        chosen = None if chosen is None else np.sort(chosen)
        unit = sketch(train, images, chosen, m, dims)
        kept = farthest_first(unit, n, int(torch.randint(m, (1,), generator=generator)), SKETCH_SLACK)
        return kept if chosen is None else chosen[kept]

    def _require_affordable(self, n: int, m: int, dims: int, size: int) -> None:
        """Say what a coreset of n of m vectors will take. Raises InputError for more hours than ``coreset_hours``."""
        from dinodp.models.k_center import estimated_seconds

        hours = estimated_seconds(m, n, dims) / SECONDS_PER_HOUR
        about = f"about {hours:.2g} hours and {size / BYTES_PER_GIB:.2g} GiB"
        if hours > self.coreset_hours:
            raise InputError(
                f"A coreset of {n} of {m} embeddings would take {about}, more than coreset_hours: "
                f"{self.coreset_hours:g} allows: choose a smaller coreset_fraction or max_embeddings, or allow more."
            )
        logger.info("Coreset: %d of %d embeddings, by %d numbers each; %s.", n, m, dims, about)

    def layout(self, dim: int) -> Layout:
        """Which images and embeddings are remembered, and the embeddings or their codes."""
        if self._is_looked_up:
            from dinodp.models.inverted_file import CODEWORDS, usual_code_bytes

            parts = self.code_bytes or usual_code_bytes(dim)
            return {
                "images": Stored((self.shots,), 0, kind="i"),
                "centroids": Stored((self.lists, dim), -UNIT, UNIT),
                "codebooks": Stored((parts, CODEWORDS, max(1, dim // parts)), -2 * UNIT, 2 * UNIT),
                "codes": Stored((None, parts), kind="u"),
                "list_sizes": Stored((self.lists,), 0, kind="i"),
            }
        chosen = self.coreset_fraction is not None or self.max_embeddings is not None
        return {
            "images": Stored((self.shots,), 0, kind="i"),
            "remembered": Stored((None, dim)),
            **({"embeddings": Stored((None,), 0, kind="i")} if chosen else {}),
        }

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> Bank:
        """Take the remembered embeddings from the state, or read them from the training split: now, or for every search
        where they are too many."""
        import torch

        from dinodp.families.features import IMAGES_PER_READ, chunks
        from dinodp.models import MemoryBank
        from dinodp.models.inverted_file import PROBES, InvertedFile

        if self._is_looked_up:
            return Bank(InvertedFile(state, self.probes or PROBES), self.scores, IMAGES_PER_READ)
        images = [int(index) for index in state["images"]]
        bank = MemoryBank(device=device)
        if "remembered" in state:
            bank.fit(torch.from_numpy(state["remembered"]).float())
        elif "embeddings" in state:
            bank.fit(picked(train, images, state["embeddings"]))
        elif (size := _bytes(train.count(images), train)) <= (limit := self._memory(device)):
            bank.fit(chunks(train, images), train.count(images))
        else:
            logger.info("The memory bank takes %d MiB, over %d: it is streamed.", size // 2**20, limit // 2**20)
            bank.fit_streamed(lambda: chunks(train, images), train.dim)
            return Bank(bank, self.scores, IMAGES_PER_SHARD)  # reading the bank stays a small part of the search
        return Bank(bank, self.scores, IMAGES_PER_READ)

    def _memory(self, device: str) -> float:
        """Bytes that the bank may take on its device: ``bank_memory_gib``, else a fixed share."""
        import torch

        if self.bank_memory_gib is not None:
            return self.bank_memory_gib * BYTES_PER_GIB
        kind = torch.device(device).type
        if kind != "cpu":
            return GPU_MEMORY_SHARE * float(getattr(torch, kind).mem_get_info()[0])
        return BANK_MEMORY_GIB * BYTES_PER_GIB


class Bank:
    """The remembered embeddings and how many images are searched for at once."""

    def __init__(self, bank: models.MemoryBank | InvertedFile, names: Sequence[str], images_per_read: int) -> None:
        self.bank, self.names, self.images_per_read = bank, names, images_per_read

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """1 - cosine similarity to the nearest remembered embedding."""
        from dinodp.families.scores import score_maps

        return score_maps({"cosine": self.bank.distances(tokens.flatten(0, 2))}, tokens, self.names)


def picked(train: Source, images: Sequence[int], chosen: npt.NDArray[np.int64] | None) -> torch.Tensor:
    """Embeddings float32 [n, D] of the images: all, or the chosen ones in their order."""
    import torch

    from dinodp.families.features import chunks

    if chosen is None:
        return torch.cat(list(chunks(train, images)))
    order = np.argsort(chosen, kind="stable")
    found, first = torch.empty(len(chosen), train.dim), 0
    for x in chosen_chunks(train, images, chosen[order]):  # all of them may not fit in memory
        found[torch.from_numpy(order[first : first + len(x)])] = x
        first += len(x)
    return found


def chosen_chunks(train: Source, images: Sequence[int], chosen: npt.NDArray[np.int64]) -> Iterator[torch.Tensor]:
    """Embeddings [n, D] of the images with these rising numbers, a few images at a time."""
    import torch

    from dinodp.families.features import chunks

    first = 0
    for x in chunks(train, images):
        inside = slice(*np.searchsorted(chosen, (first, first + len(x))))
        if inside.start < inside.stop:
            yield x[torch.from_numpy(chosen[inside] - first)]
        first += len(x)


def sketch(
    train: Source, images: Sequence[int], chosen: npt.NDArray[np.int64] | None, count: int, dims: int
) -> torch.Tensor:
    """Unit vectors float16 [count, dims]: embeddings of the images on the leading principal axes of the split.

    Of all embeddings, or those with the rising numbers ``chosen``. Raises InputError for ones that are not finite.
    """
    import torch

    from dinodp.families.features import IMAGES_PER_READ, chunks, principal_axes
    from dinodp.models.components import finite_matrix
    from dinodp.models.memory_bank import unit_vectors

    axes = principal_axes(train, dims)
    found, first = torch.empty(count, dims, dtype=torch.float16), 0
    parts = chunks(train, images) if chosen is None else chosen_chunks(train, images, chosen)
    for x in progress(parts, "sketch", total=len(images), per_item=IMAGES_PER_READ):
        projected = unit_vectors(finite_matrix(x)) @ axes
        found[first : first + len(x)] = torch.nn.functional.normalize(projected, dim=1).half()
        first += len(x)
    return found


def _permutation(n: int, generator: torch.Generator) -> npt.NDArray[np.int64]:
    """A random order of n things."""
    import torch

    return np.asarray(torch.randperm(n, generator=generator).numpy())


def _drawn(train: Source, images: Sequence[int], count: int, generator: torch.Generator) -> npt.NDArray[np.int64]:
    """About ``count`` of the embeddings of the images, equally many of each, drawn without replacement."""
    import torch

    per_image, drawn, first = -(-count // len(images)), [], 0
    for image in images:
        n_embeddings = train.count([image])
        drawn.append(first + torch.randperm(n_embeddings, generator=generator)[:per_image].numpy())
        first += n_embeddings
    return np.concatenate(drawn)


def _some_of(
    train: Source,
    images: Sequence[int],
    chosen: npt.NDArray[np.int64] | None,
    most: int,
    generator: torch.Generator,
) -> npt.NDArray[np.int64]:
    """At most ``most`` numbers of embeddings, drawn: of the chosen ones, or of all, equally many of each image."""
    if chosen is not None:
        return chosen[_permutation(len(chosen), generator)[:most]]
    drawn = _drawn(train, images, min(most, train.count(images)), generator)
    return drawn[_permutation(len(drawn), generator)[:most]]


def _bytes(n_embeddings: int, train: Source) -> int:
    """In float32, as a bank lies in memory when it scores."""
    return n_embeddings * train.dim * 4
