"""Statistics of patch scores as image scores: image AUROC on the test split, and how each depends on what is healthy.

    python benchmarks/image_scores.py RESULTS OUT.csv

``healthy``: |Spearman correlation| with the size of the foreground over normal validation images, which needs no
anomaly: a score that follows the size of the brain ranks levels, not disease. The statistic with the smallest one is
the choice that healthy data can make.
"""

import argparse
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score

from dinodp import store
from dinodp.datasets.manifest import read_manifest, select

UPPER = (0.01, 0.05, 0.2)


def upper(values: np.ndarray, share: float) -> float:
    count = max(1, round(share * len(values)))
    return float(np.sort(values)[-count:].mean())


def statistics(maps: np.ndarray, shown: np.ndarray, subjects: np.ndarray) -> dict[str, np.ndarray]:
    """{name: [image]} of patch scores [image, row, col] and foreground of the same shape."""
    smooth = ndimage.gaussian_filter(maps, (0, 0.7, 0.7))
    inside = [values[mask] if mask.any() else values.ravel() for values, mask in zip(maps, shown, strict=True)]
    found = {
        "top 1 % of all patches": [upper(values.ravel(), 0.01) for values in maps],
        "maximum": [values.max() for values in maps],
        "three highest, smoothed 0.7": [upper(values.ravel(), 3 / values.size) for values in smooth],
        **{f"top {share:.0%} of foreground": [upper(values, share) for values in inside] for share in UPPER},
        "maximum minus median of foreground": [values.max() - np.median(values) for values in inside],
    }
    arrays = {name: np.array(values) for name, values in found.items()}
    arrays["top 1 % of all, minus the scan's median"] = by_scan(arrays["top 1 % of all patches"], subjects)
    return arrays


def by_scan(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """Image scores minus the median over the images of their scan, which may itself be ill."""
    return values - pd.Series(values).groupby(subjects).transform("median").to_numpy()


def rows_of(results: Path, model: Path) -> list[dict[str, object]]:
    """One row per statistic of a scores folder."""
    dataset, embedding, name, seed = model.relative_to(results / "scores").parts
    manifest = read_manifest(results / f"data/{dataset}/manifest.csv")
    found = {split: split_statistics(results, model, manifest, split) for split in ("valid", "test")}
    test, sizes = select(manifest, "test"), found["valid"]["size"]
    normal = (select(manifest, "valid")["label"] == "normal").to_numpy()
    anomalous = (test["label"] == "anomalous").to_numpy()
    return [
        {
            "dataset": dataset, "embedding": embedding, "model": name, "seed": seed.removeprefix("seed-"),
            "statistic": statistic, "image_auroc": roc_auc_score(anomalous, values),
            "healthy": abs(stats.spearmanr(found["valid"][statistic][normal], sizes[normal])[0])
            if statistic in found["valid"] else np.nan,
        }
        for statistic, values in found["test"].items()
    ]  # fmt: skip


def split_statistics(results: Path, model: Path, manifest: pd.DataFrame, split: str) -> dict[str, np.ndarray]:
    dataset, embedding, *_ = model.relative_to(results / "scores").parts
    maps = next(iter(store.read_maps(model / f"{split}.h5").values()))
    own = next(iter(store.read_image_scores(model / f"{split}.h5").values()))
    with h5py.File(results / f"embeddings/{dataset}/{embedding}/{split}.h5") as file:
        shown = file["foreground"][()].astype(bool)
    found = statistics(maps, shown, select(manifest, split)["subject"].fillna("").to_numpy())
    if model.parent.name.startswith("patchcore"):
        found["re-weighted (PatchCore's own)"] = own
    return found | {"size of the foreground alone": shown.sum((1, 2)).astype(float), "size": shown.sum((1, 2))}


def main() -> None:
    """Write one row per model, seed and statistic, and print means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    models = sorted(path.parent for path in (options.results / "scores").glob("*/*/*/seed-*/test.h5"))
    rows = [row for model in models for row in rows_of(options.results, model) if row["statistic"] != "size"]
    frame = pd.DataFrame(rows)
    frame.round(4).to_csv(options.out, index=False)
    means = frame.groupby(["dataset", "model", "statistic"])[["image_auroc", "healthy"]].mean()
    print(means.groupby(["dataset", "statistic"]).mean().round(3).to_string())


if __name__ == "__main__":
    main()
