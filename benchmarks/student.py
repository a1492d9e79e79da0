"""Teacher, early exits and a student on OASIS: accuracy with the same mixture, and CPU time against the teacher's.

    python benchmarks/student.py RESULTS [--student FOLDER] --out rows.csv

RESULTS: a run's folder with ``data/oasis_t1``. The teacher is block 6 of ViT-Tiny at 448 pixels; early exits are its
earlier blocks' own tokens, and these with a linear head (ridge) that predicts block 6's. Every model is fitted on every
third training slice: 200 components, Mahalanobis distance, maps smoothed with sigma 4; means over three seeds of the
fit. Intervals: Student's t over the five test subjects of the paired differences of each subject's own AUROC and AP.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from backbone import VIT_TINY
from scipy import ndimage, stats
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn import functional

from dinodp.backbones import Backbone, load_backbone
from dinodp.images import read_image, read_mask
from dinodp.models import EmpiricalBayesMixture

EVERY, BATCH, COMPONENTS, SIGMA, PAIRS, STRIDE, SEEDS = 3, 4, 200, 4.0, 15, 2, 3
BLOCKS, HEADS, LAST = (1, 2, 3, 4, 5, 6), (1, 2, 3), 6
Score = Callable[[torch.Tensor], torch.Tensor]


class Images:
    """Training and test images, their foreground patches and masks."""

    def __init__(self, results: Path) -> None:
        folder = results / "data/oasis_t1"
        table = pd.read_csv(folder / "manifest.csv", keep_default_na=False)
        self.folder = folder
        self.train = table[table["split"] == "train"].iloc[::EVERY]
        self.test = table[table["split"] == "test"]
        self.subjects = self.test["subject"].to_numpy()
        self.masks = [self._mask(path) for path in self.test["mask"]]

    def _mask(self, path: str) -> np.ndarray:
        return read_mask(self.folder / path) > 0 if path else np.zeros((240, 240), bool)

    def batches(self, rows: pd.DataFrame, backbone: Backbone) -> list[torch.Tensor]:
        pictures = [backbone.prepare(read_image(self.folder / path)) for path in rows["image"]]
        return list(torch.stack(pictures).split(BATCH))


def embedded(backbone: Backbone, batches: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([backbone.embed(batch) for batch in batches])


def foreground(batches: list[torch.Tensor]) -> torch.Tensor:
    """Which patches [n, row, col] show a pixel that is not black; black is -1 as the backbone sees it."""
    return functional.max_pool2d(torch.cat([batch[:, :1] for batch in batches]), 16)[:, 0] > -1


def fitted(x: torch.Tensor, seed: int) -> EmpiricalBayesMixture:
    """A mixture of unit vectors; a fifth of them, in one piece (subjects are in order), choose nu."""
    part = x[: len(x) // 5]
    whole, others = (EmpiricalBayesMixture(COMPONENTS) for _ in range(2))
    generator = torch.Generator().manual_seed(seed)
    whole.fit(lambda: iter([x]), generator)
    others.fit(lambda: iter([x[len(part) :]]), generator).calibrate(lambda: iter([part]))
    return whole.shrink_as(others)


def maps_of(scores: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    maps = torch.full(shown.shape, float(scores.min()))
    maps[shown] = scores.float()
    return maps


def by_subject(maps: torch.Tensor, images: Images) -> pd.DataFrame:
    """AUROC and AP of pixels (every second row and column), of all test subjects and of each."""
    large = functional.interpolate(maps[:, None], size=(240, 240), mode="bilinear", align_corners=False)[:, 0].numpy()
    smooth = ndimage.gaussian_filter(large, (0, SIGMA, SIGMA))[:, ::STRIDE, ::STRIDE]
    truth = np.stack(images.masks)[:, ::STRIDE, ::STRIDE]
    rows = {}
    for name in ("all", *np.unique(images.subjects)):
        chosen = np.ones(len(truth), bool) if name == "all" else images.subjects == name
        y, s = truth[chosen].ravel(), smooth[chosen].ravel()
        rows[str(name)] = {"auroc": roc_auc_score(y, s), "ap": average_precision_score(y, s)}
    return pd.DataFrame(rows).T


def evaluate(train: torch.Tensor, test: torch.Tensor, shown: tuple[torch.Tensor, torch.Tensor], images: Images):
    """The mixture of the first seed; metrics of its scores, means over seeds; and their deviations over seeds."""
    x = functional.normalize(train[shown[0]].float(), dim=-1)
    unit = functional.normalize(test[shown[1]].float(), dim=-1)
    mixtures = [fitted(x, seed) for seed in range(SEEDS)]
    scores = [torch.as_tensor(mixture.scores(unit, ["mahalanobis"])["mahalanobis"]) for mixture in mixtures]
    found = pd.concat([by_subject(maps_of(one, shown[1]), images) for one in scores], keys=range(SEEDS))
    spread = found.xs("all", level=1).std().add_suffix("_sd")
    return mixtures[0], found.groupby(level=1).mean(), spread.to_dict()


def ridge(x: torch.Tensor, y: torch.Tensor) -> Score:
    """The linear map, with a constant, that predicts y [n, D] from x [n, D]."""
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    inputs = torch.cat([x.double(), ones], 1)
    weights = torch.linalg.solve(inputs.T @ inputs + 1e-3 * torch.eye(inputs.shape[1]), inputs.T @ y.double()).float()
    return lambda z: z @ weights[:-1] + weights[-1]


def cpu_ratio(teacher: Backbone, other: Backbone, pixels: torch.Tensor, mixture: EmpiricalBayesMixture) -> np.ndarray:
    """CPU seconds [PAIRS, 2] of backbone and scoring of all patches, teacher and other in turn."""

    def once(backbone: Backbone) -> float:
        start = time.process_time()
        x = functional.normalize(backbone.embed(pixels), dim=-1).flatten(0, 2)
        mixture.scores(x, ["mahalanobis"])
        return time.process_time() - start

    once(teacher), once(other)
    return np.array([(once(teacher), once(other)) for _ in range(PAIRS)])


def interval(difference: pd.Series) -> list[float]:
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std() / len(difference) ** 0.5
    return [difference.mean(), difference.mean() - half, difference.mean() + half]


def row_of(name: str, found: pd.DataFrame, teacher: pd.DataFrame, pairs: np.ndarray, **more: float) -> dict:
    row = {"backbone": name, **found.loc["all"].to_dict(), **more}
    for metric in ("auroc", "ap"):
        values = interval((found[metric] - teacher[metric]).drop("all"))
        row |= dict(zip((f"{metric}_minus", f"{metric}_low", f"{metric}_high"), values, strict=True))
    ratio = pairs[:, 1] / pairs[:, 0]
    row |= {"ms": 1e3 * np.median(pairs[:, 1]) / BATCH, "time_ratio": np.median(ratio)}
    return row | {"ratio_q1": np.quantile(ratio, 0.25), "ratio_q3": np.quantile(ratio, 0.75)}


def measure(images: Images, student: Path | None) -> Iterator[dict]:
    """A row for the teacher, the student, each early exit and each linear head, as they are measured."""
    teacher = load_backbone(str(VIT_TINY), resolution=448, layers=BLOCKS)
    batches = [images.batches(rows, teacher) for rows in (images.train, images.test)]
    shown = (foreground(batches[0]), foreground(batches[1]))
    tokens = [embedded(teacher, part).unflatten(-1, (len(BLOCKS), -1)).half() for part in batches]
    pixels, exits = batches[1][0], {n: load_backbone(str(VIT_TINY), resolution=448, layers=(n,)) for n in BLOCKS}
    mixture, reference, spread = evaluate(tokens[0][..., LAST - 1, :], tokens[1][..., LAST - 1, :], shown, images)
    same = cpu_ratio(exits[LAST], exits[LAST], pixels, mixture)
    yield row_of("teacher, block 6", reference, reference, same, **spread)
    if student is not None:
        yield from of_student(student, batches, tokens[1][..., LAST - 1, :], shown, images, reference, exits, mixture)
    for n in BLOCKS[:-1]:
        _, found, spread = evaluate(tokens[0][..., n - 1, :], tokens[1][..., n - 1, :], shown, images)
        pairs = cpu_ratio(exits[LAST], exits[n], pixels, mixture)
        yield row_of(f"early exit, block {n}", found, reference, pairs, **spread)
    for n in HEADS:
        yield linear(n, tokens, shown, images, reference, exits, pixels, mixture)


def of_student(student, batches, theirs, shown, images, reference, exits, mixture) -> Iterator[dict]:
    """A student with a mixture of its own, with the teacher's, and its discrepancy from the teacher ``theirs``."""
    backbone = load_backbone(str(student), resolution=448)
    pairs = cpu_ratio(exits[LAST], backbone, batches[1][0], mixture)
    own = [embedded(backbone, part) for part in batches]
    _, found, spread = evaluate(own[0], own[1], shown, images)
    yield row_of("student", found, reference, pairs, **spread)
    scores = mixture.scores(functional.normalize(own[1][shown[1]], dim=-1), ["mahalanobis"])["mahalanobis"]
    on_teacher = by_subject(maps_of(torch.as_tensor(scores), shown[1]), images)
    yield row_of("student, the teacher's mixture", on_teacher, reference, pairs)
    apart = 1 - functional.cosine_similarity(own[1][shown[1]], theirs[shown[1]].float(), dim=-1)
    both = pairs + np.array([0, 1]) * pairs[:, :1]  # the discrepancy needs both networks
    found = by_subject(maps_of(apart, shown[1]), images)
    yield row_of("discrepancy of student and teacher", found, reference, both)


def linear(n, tokens, shown, images, reference, exits, pixels, mixture) -> dict:
    """A linear head on block n that predicts the unit tokens of block 6; its own product takes no time to speak of."""
    head = ridge(
        tokens[0][..., n - 1, :][shown[0]].float(),
        functional.normalize(tokens[0][..., LAST - 1, :][shown[0]].float(), dim=-1),
    )
    parts = [head(part[..., n - 1, :].float()) for part in tokens]
    _, found, spread = evaluate(parts[0], parts[1], shown, images)
    pairs = cpu_ratio(exits[LAST], exits[n], pixels, mixture)
    return row_of(f"block {n}, linear head", found, reference, pairs, **spread)


def main() -> None:
    """One row per backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--student", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for row in measure(Images(options.results), options.student):
        rows.append(row)
        print(pd.Series(row).to_string(float_format="{:.4f}".format), flush=True)
        pd.DataFrame(rows).round(4).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
