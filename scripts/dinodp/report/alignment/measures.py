"""Do mixture components follow anatomy? Agreement of components with intensity, place and other subjects' components.

The paper's second claim is that normalised embeddings are aligned between subjects and raw ones are not. Every measure
is 0 for components drawn at random and 1 for the best there can be, however many components and labels there are: what
two labellings share is divided by the smaller of their entropies.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score

from dinodp.evaluation.intervals import MIN_SUBJECTS

N_CLASSES = 3  # of intensity: dark, middle, bright; on T1 about fluid, grey and white matter
N_INTENSITIES = 8  # equally filled bins
N_CELLS = 8  # rows and columns of the cells that tell places apart
N_LEVELS = 5
N_PERMUTATIONS = 5
MAX_PAIRS = 1000
N_GROUPS = 20  # of subjects, for intervals
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Measures = dict[str, float]


@dataclass(frozen=True)
class PatchLabels:
    """Images of one kind (normal, or anomalous) by patch, [image, row, col]; ``tissue`` says which patches count.

    ``components``: the mixture component; ``intensity``: mean grey value; ``subjects``, ``levels`` (NaN: unknown):
    [image].
    """

    components: Ints
    intensity: Floats
    tissue: Flags
    subjects: Ints
    levels: Floats

    def subset(self, images: Ints) -> "PatchLabels":
        """These images only."""
        return PatchLabels(**{name: values[images] for name, values in vars(self).items()})


def explained_share(components: Ints, labels: Ints, seed: int = 0) -> float:
    """What ``labels`` [n] explain of ``components`` [n] as a share of the most they can; may be below 0.

    (I - I0) / (H - I0): I their mutual information, I0 its mean over shuffled labels, H the smaller of their entropies:
    three labels cannot explain all of a hundred components. 0 where there is one component or one label.
    """
    generator = np.random.default_rng(seed)
    shuffled = [_information(components, generator.permutation(labels)) for _ in range(N_PERMUTATIONS)]
    chance, most = float(np.mean(shuffled)), min(_information(values, values) for values in (components, labels))
    return 0.0 if most - chance < 1e-12 else (_information(components, labels) - chance) / (most - chance)


def _information(first: Ints, second: Ints) -> float:
    """Mutual information (nat) of two labellings [n]."""
    n = int(second.max()) + 1
    joint = np.bincount(first * n + second, minlength=(int(first.max()) + 1) * n).reshape(-1, n) / len(first)
    expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    inside = joint > 0
    return float(np.sum(joint[inside] * np.log(joint[inside] / expected[inside])))


def quantile_bins(values: Floats, n: int) -> Ints:
    """Equally filled bins 0 ... n-1 of values [n]."""
    cuts = np.quantile(values, np.linspace(0, 1, n + 1)[1:-1])
    return np.searchsorted(cuts, values, side="right").astype(np.int64)


def intensity_classes(values: Floats) -> Ints:
    """Dark, middle and bright (0, 1, 2) by k-means of the grey values [n]; fewer where there are fewer values."""
    found = KMeans(min(N_CLASSES, len(np.unique(values))), n_init=4, random_state=0).fit(values[:, None])
    order = np.argsort(np.argsort(found.cluster_centers_[:, 0]))
    return np.asarray(order[found.labels_], dtype=np.int64)


def place_cells(shape: tuple[int, int, int]) -> Ints:
    """Cell of each patch, [image, row, col]: N_CELLS x N_CELLS over the image."""
    rows, columns = (np.arange(n) * N_CELLS // n for n in shape[1:])
    return np.broadcast_to(rows[:, None] * N_CELLS + columns, shape).astype(np.int64)


def label_measures(data: PatchLabels) -> Measures:
    """Agreement with intensity classes (adjusted mutual information), and what intensity and place explain."""
    inside = data.tissue
    components, values = data.components[inside], data.intensity[inside]
    intensity, place = quantile_bins(values, N_INTENSITIES), place_cells(inside.shape)[inside]
    labels = {"intensity": intensity, "place": place, "both": place * N_INTENSITIES + intensity}
    agreement = adjusted_mutual_info_score(intensity_classes(values), components, average_method="min")
    return {
        "agreement with intensity classes": float(agreement),
        **{f"explained by {name}": explained_share(components, label) for name, label in labels.items()},
    }


def consistency(first: PatchLabels, second: PatchLabels, seed: int = 0) -> float | None:
    """Cohen's kappa of the components of two subjects at the same place of the same level.

    Pairs are an image of ``first`` and one of ``second``, of different subjects; only patches that are tissue in both
    count. None where no level is known or no such pair exists.
    """
    pairs = matching_pairs(first, second, seed)
    parts = [part for one, other in pairs if (part := _agreement(first, one, second, other)) is not None]
    if not parts:
        return None
    observed, expected = np.mean(parts, axis=0)
    return float((observed - expected) / max(1 - expected, 1e-12))


def matching_pairs(first: PatchLabels, second: PatchLabels, seed: int) -> list[tuple[int, int]]:
    """Pairs (image of ``first``, image of ``second``) of the same level and different subjects, at most MAX_PAIRS."""
    levels = [np.floor(np.clip(data.levels, 0, 1 - 1e-9) * N_LEVELS) for data in (first, second)]
    same = levels[0][:, None] == levels[1][None, :]  # NaN equals nothing
    pairs = np.argwhere(same & (first.subjects[:, None] != second.subjects[None, :]))
    if len(pairs) > MAX_PAIRS:
        pairs = pairs[np.sort(np.random.default_rng(seed).choice(len(pairs), MAX_PAIRS, replace=False))]
    return [(int(one), int(other)) for one, other in pairs]


def _agreement(first: PatchLabels, one: int, second: PatchLabels, other: int) -> tuple[float, float] | None:
    """Observed agreement, and that expected from both images' shares of each component."""
    inside = first.tissue[one] & second.tissue[other]
    if not inside.any():
        return None
    a, b = first.components[one][inside], second.components[other][inside]
    n = int(max(a.max(), b.max())) + 1
    expected = float(np.bincount(a, minlength=n) @ np.bincount(b, minlength=n)) / len(a) ** 2
    return float((a == b).mean()), expected


def all_measures(data: PatchLabels, normal: PatchLabels) -> Measures:
    """Measures of the images ``data``, paired with ``normal`` ones for the consistency between subjects."""
    found = label_measures(data)
    if (between := consistency(data, normal)) is not None:
        found["consistency between subjects"] = between
    return found


def jackknife_interval(value: float, without: Floats) -> tuple[float, float]:
    """95 % interval of a value from those without one group of subjects each [group]; NaN for fewer than MIN_SUBJECTS.

    The bootstrap would repeat subjects, and repeated patches share information that is none.
    """
    n = len(without)
    if n < MIN_SUBJECTS:
        return float("nan"), float("nan")
    error = float(np.sqrt((n - 1) / n * np.square(without - without.mean()).sum()))
    half = float(stats.t.ppf(0.975, n - 1)) * error
    return value - half, value + half


def measure(normal: PatchLabels, anomalous: PatchLabels | None) -> Iterator[dict[str, Any]]:
    """All measures of normal images, and of the healthy patches of anomalous ones where there are any."""
    kinds: Mapping[str, PatchLabels | None] = {"normal": normal, "anomalous, outside lesions": anomalous}
    for kind, data in kinds.items():
        if data is None or not data.tissue.any():
            continue
        values = all_measures(data, normal)
        groups = np.array_split(np.unique(data.subjects), min(N_GROUPS, len(np.unique(data.subjects))))
        without = [_without(data, normal, group) for group in groups] if len(groups) > 1 else []
        for name, value in values.items():
            low, high = jackknife_interval(value, np.array([found.get(name, np.nan) for found in without]))
            yield {
                "images": kind,
                "measure": name,
                "value": value,
                "low": low,
                "high": high,
                "n_images": len(data.subjects),
                "n_subjects": len(np.unique(data.subjects)),
            }


def _without(data: PatchLabels, normal: PatchLabels, subjects: Ints) -> Measures:
    """Measures without some subjects."""
    kept = [part.subset(np.flatnonzero(~np.isin(part.subjects, subjects))) for part in (data, normal)]
    return all_measures(*kept)
