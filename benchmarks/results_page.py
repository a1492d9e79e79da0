"""The tables of docs/results.md from the files of a finished run, and their numbers as one CSV.

python benchmarks/results_page.py results --csv benchmarks/results/baselines.csv > tables.md
"""

import argparse
from pathlib import Path

import pandas as pd

METRICS = {
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "AP",
    "aupro_30": "AUPRO (FPR up to 0.3)",
    "image_auroc": "image AUROC",
}
COSTS = {"fit_seconds": "fit, s", "scoring_ms_per_image": "scoring, ms per image", "model_mib": "model, MiB"}
KEY = ["dataset", "embedding", "model"]


def statistics(folder: Path) -> pd.DataFrame:
    """Mean, standard deviation over seeds and number of seeds of each metric, masks counted as > 0."""
    metrics = pd.read_csv(folder / "metrics.csv")
    metrics = metrics[metrics["metric"].isin(METRICS) & (metrics["mask_rule"] == "gt0")]
    found: pd.DataFrame = metrics.groupby([*KEY, "score", "metric"])["value"].agg(["count", "mean", "std"])
    return found


def cell(row: pd.Series) -> str:
    """Mean and spread; deterministic models have none."""
    spread = "" if pd.isna(row["std"]) else f" ± {row['std']:.3f}"
    return f"{row['mean']:.3f}{spread}"


def table(found: pd.DataFrame, costs: pd.DataFrame, dataset: str) -> str:
    """One row per model and score of a data set."""
    heads = ["model", "score", *METRICS.values(), *COSTS.values()]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for (embedding, model, score), rows in found.loc[dataset].groupby(["embedding", "model", "score"]):
        values = [cell(rows.loc[(embedding, model, score, metric)]) for metric in METRICS]
        spent = [f"{costs.loc[(dataset, embedding, model), name]:.3g}" for name in COSTS]
        lines.append("| " + " | ".join([f"`{model}`", score.replace("_", " "), *values, *spent]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args()
    found = statistics(options.folder)
    found.round(5).to_csv(options.csv)
    costs = pd.read_csv(options.folder / "costs.csv").groupby(KEY)[list(COSTS)].mean()
    for dataset in found.index.unique("dataset"):
        print(f"### {dataset}\n{table(found, costs, dataset)}\n")


if __name__ == "__main__":
    main()
