"""Train a student: rounds of images that the teacher embeds once and the student learns from several times."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dinodp.backbones import Backbone
from dinodp.backbones.base import exact_convolutions
from dinodp.backbones.student_backbone import write_student
from dinodp.backbones.student_file import DIGITS
from dinodp.backbones.student_network import StudentNetwork
from dinodp.distillation.disturbing import disturbed
from dinodp.errors import InputError
from dinodp.jobs.checkpoints import Checkpoint
from dinodp.jobs.closure import code_digest
from dinodp.jobs.logs import logger, progress
from dinodp.jobs.origin import sha256
from dinodp.options.distillation import DistillationOptions

FIRST_STEPS = 200  # over which the learning rate rises
LAST_RATE = 0.02  # of the highest, at the end
WEIGHT_DECAY = 0.02
BLACK_WEIGHT = 0.05  # of a patch that shows nothing, in the loss
N_OTHERS = 16  # images of a round from which parts are taken
TEACHER_BATCH = 4
SMALLEST_SCALE = 0.1  # of a channel in which the teacher hardly varies, over the root mean square of all


@dataclass(frozen=True)
class NormalImages:
    """What a student learns from: ``read`` gives image i as uint8 [H, W, 3], ``digests`` the SHA-256 of its file or
    scan.

    ``name`` is that of the data set; ``prepared``: plain values that decide what is read of the files.
    """

    name: str
    digests: Sequence[str]
    read: Callable[[int], NDArray[np.uint8]]
    prepared: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """Standardised pixels [n, 3, H, W], the teacher's unit embeddings and the weights of patches [n, row, col]."""

    pixels: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


@dataclass
class History:
    """One entry per round: the loss (squared error in units of each channel's variance), seconds of CPU time."""

    loss: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


def distil(
    teacher: Backbone,
    images: NormalImages,
    options: DistillationOptions,
    folder: Path,
) -> dict[str, float]:
    """Train a student and write it into ``folder``; returns CPU seconds, last loss and number of images.

    An interrupted training goes on from ``<folder>.checkpoint`` after its last whole round, to the same bytes.
    Raises InputError for no image, for images of several sizes, for a teacher that does not resize images as students
    do, and when the loss is not finite.
    """
    if not images.digests:
        raise InputError("There is no normal image to train a student on.")
    if (interpolation := getattr(teacher, "interpolation", "bicubic")) != "bicubic":
        raise InputError(
            f"The teacher {teacher.name} resizes images by {interpolation} interpolation, but a student by bicubic."
        )
    data = [list(images.digests), dict(images.prepared)]
    key = sha256(json.dumps([teacher.provenance(), data, options.plain(), code_digest(__name__)]))
    checkpoint = Checkpoint(folder.with_name(folder.name + ".checkpoint"), key)
    training = Training(teacher, images, options)
    if (content := checkpoint.load()) is not None:
        training.load(content)
        logger.info("Resume the distillation after round %d.", training.rounds)
    for _ in progress(range(training.rounds, options.rounds), "distil", unit="round"):
        training.run_round()
        checkpoint.save(training.state(), synced=True)
    write_student(folder, training.network, training.description())
    checkpoint.path.unlink(missing_ok=True)
    history = training.history
    return {"cpu_seconds": sum(history.cpu_seconds), "loss": history.loss[-1], "images": float(len(images.digests))}


class Training:
    """Network, optimiser, random generator and history of one distillation."""

    def __init__(self, teacher: Backbone, images: NormalImages, options: DistillationOptions) -> None:
        self.teacher, self.images, self.options = teacher, images, options
        self.generator = torch.Generator().manual_seed(options.seed)
        self.device = getattr(teacher, "device", torch.device("cpu"))
        self.network = StudentNetwork(teacher.dim, teacher.patch_size, **options.size())
        self.network.initialise(self.generator)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY
        )
        self.history = History()

    @property
    def rounds(self) -> int:
        """Rounds that are done."""
        return len(self.history.loss)

    def state(self) -> dict[str, Any]:
        """All that the following rounds depend on."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "history": vars(self.history),
        }

    def load(self, content: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.network.load_state_dict(content["network"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.generator.set_state(content["generator"])
        self.history = History(**content["history"])

    def description(self) -> dict[str, Any]:
        """What the student's file says of it."""
        options = self.options
        return {
            "teacher": self.teacher.provenance(),
            "data": {"name": self.images.name, "images": sorted({digest[:DIGITS] for digest in self.images.digests})},
            "options": options.plain(),
            "history": {"loss": self.history.loss},
            "network": {"dim": self.teacher.dim, "patch_size": self.teacher.patch_size, **options.size()},
            "resolution": self.teacher.resolution,
            "square": bool(getattr(self.teacher, "square", False)),
            "mean": list(self.teacher.mean),
            "std": list(self.teacher.std),
        }

    def run_round(self) -> None:
        """Draw images, ask the teacher, learn."""
        start = process_time()
        drawn = self._draw()
        if self.rounds == 0:
            self._take_scale(drawn)
        with exact_convolutions():
            losses = [self._learn(drawn, batch) for batch in self._batches(len(drawn.pixels))]
        self.history.loss.append(sum(losses) / len(losses))
        self.history.cpu_seconds.append(process_time() - start)

    def _draw(self) -> Round:
        count = self.options.images_per_round
        chosen = torch.randint(len(self.images.digests), (count,), generator=self.generator).tolist()
        prepared = [self.teacher.prepare(self.images.read(index)) for index in chosen]
        if len({picture.shape for picture in prepared}) > 1:
            raise InputError("The images have several sizes as the backbone sees them: say square.")
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.teacher.mean, self.teacher.std))
        pictures = [picture * std + mean for picture in prepared]
        if self.options.disturbed:
            pictures = [disturbed(picture, pictures[:N_OTHERS], self.generator) for picture in pictures]
        pixels = torch.stack([(picture - mean) / std for picture in pictures])
        tokens = torch.cat([self.teacher.embed(part).cpu() for part in pixels.split(TEACHER_BATCH)])
        shown = functional.max_pool2d(torch.stack(pictures).amax(1, keepdim=True), self.teacher.patch_size)[:, 0] > 0
        return Round(pixels, functional.normalize(tokens, dim=-1), BLACK_WEIGHT + (1 - BLACK_WEIGHT) * shown.float())

    def _take_scale(self, drawn: Round) -> None:
        """Mean and deviation of the teacher's embeddings, in which the loss is measured."""
        seen = drawn.targets[drawn.weights == drawn.weights.max()]
        self.network.mean.copy_(seen.mean(0))
        scale = seen.std(0)
        self.network.scale.copy_(scale.clamp_min(SMALLEST_SCALE * float(scale.square().mean().sqrt())))

    def _batches(self, count: int) -> list[torch.Tensor]:
        """Indices of the images of each step."""
        each = self.options.images_per_step
        orders = [torch.randperm(count, generator=self.generator) for _ in range(self.options.passes)]
        return [batch for order in orders for batch in order.split(each)]

    def _rate(self) -> float:
        """Of the step that comes: a rise, then half a cosine."""
        options = self.options
        steps = options.rounds * options.passes * math.ceil(options.images_per_round / options.images_per_step)
        falling = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * self._step / steps)) / 2
        return options.learning_rate * min(1.0, (self._step + 1) / FIRST_STEPS) * falling

    @property
    def _step(self) -> int:
        """Steps that are done."""
        states = self.optimiser.state.values()
        return int(next(iter(states))["step"]) if states else 0

    def _learn(self, drawn: Round, batch: torch.Tensor) -> float:
        """One step; returns the mean squared error in units of each channel's variance."""
        self.optimiser.param_groups[0]["lr"] = self._rate()
        pixels, targets, weights = (
            part[batch].to(self.device) for part in (drawn.pixels, drawn.targets, drawn.weights)
        )
        found = self.network.train().standardised(pixels.contiguous(memory_format=torch.channels_last))
        wanted = (targets - self.network.mean) / self.network.scale
        errors = (found.permute(0, 2, 3, 1) - wanted).square().mean(-1)
        loss = (errors * weights).sum() / weights.sum()
        if not torch.isfinite(loss):
            raise InputError("The student's loss is not finite: take a lower learning_rate, or look at the images.")
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())
