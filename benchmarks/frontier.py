"""Draw docs/images/frontier.png from the committed results: accuracy against number of vectors and against time.

    python benchmarks/frontier.py

A row of panels per layer, from results/frontier.csv of `frontier_measure.py`; bars are the smallest and largest seed.
"""

from io import BytesIO

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image
from runner import FOLDER

mpl.use("Agg")
import matplotlib.pyplot as plt

STYLES = {
    "calibrated_mixture": ("#0072b2", "-o", "our mixture, calibrated distance"),
    "gmm": ("#009e73", "-s", "Gaussian mixture, no prior, same start"),
    "k_means": ("#cc79a7", "-^", "spherical k-means"),
    "coreset": ("#e69f00", "-v", "greedy coreset"),
    "random bank": ("#d55e00", "-D", "random part of the bank"),
    "paper": ("#56b4e9", "-P", "the paper's mixture, active components"),
    "full bank": ("#000000", "*", "whole bank"),
}
AXES = {"vectors": "vectors", "cpu_ms_784": "CPU ms per 784 patches, 1 thread"}
LAYERS = {"last": "last layer", "b6": "block 6"}


def main() -> None:
    found = pd.read_csv(FOLDER / "results/frontier.csv")
    figure, panels = plt.subplots(2, 2, figsize=(8.6, 6.6), sharex="col", sharey="row", layout="constrained")
    for (layer, title), row in zip(LAYERS.items(), panels, strict=True):
        rows = found[found["layer"] == layer]
        for axes, (column, label) in zip(row, AXES.items(), strict=True):
            draw(axes, rows, column)
            axes.set(xscale="log", title=f"OASIS, {title}")
            axes.grid(alpha=0.25)
            if layer == list(LAYERS)[-1]:
                axes.set_xlabel(label)
        row[0].set_ylabel("AP of artificial lesions\n(geometric mean over five kinds)")
    panels[0, 1].legend(frameon=False, fontsize=7, loc="lower right")
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110)
    picture = Image.open(buffer).convert("RGB").quantize(64)
    picture.save(FOLDER.parent / "docs/images/frontier.png", optimize=True)


def draw(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    """One line per model through the means over seeds."""
    for name, (colour, style, label) in STYLES.items():
        sizes = rows[rows["model"] == name].groupby("size")
        x, y = sizes[column].mean().to_numpy(), sizes["gm_ap"].mean().to_numpy()
        bars = [y - sizes["gm_ap"].min().to_numpy(), sizes["gm_ap"].max().to_numpy() - y]
        size = 9 if name == "full bank" else 4
        axes.errorbar(x, y, bars, fmt=style, color=colour, markersize=size, linewidth=1.3, label=label)


if __name__ == "__main__":
    main()
