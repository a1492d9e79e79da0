"""Draw docs/images/frontier.png from the committed results: accuracy against number of vectors and against time.

    python benchmarks/frontier.py

A row of panels per layer, each with lesions of its own draw: the last from `frontier_measure.py`, block 6 from research
code that is not kept. Bars are the smallest and the largest seed.
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
FILES = {"last layer": "frontier_oasis_last.csv", "block 6": "frontier_oasis_b6.csv"}


def main() -> None:
    figure, panels = plt.subplots(2, 2, figsize=(8.6, 6.6), sharex="col", sharey="row", layout="constrained")
    for (layer, file), row in zip(FILES.items(), panels, strict=True):
        found = pd.read_csv(FOLDER / "results" / file)
        for axes, column in zip(row, AXES, strict=True):
            draw(axes, found, column)
            axes.set(xscale="log", title=f"OASIS, {layer}")
            axes.grid(alpha=0.25)
        row[0].set_ylabel("AP of artificial lesions\n(geometric mean over five kinds)")
    for axes, label in zip(panels[-1], AXES.values(), strict=True):
        axes.set_xlabel(label)
    panels[1, 1].legend(frameon=False, fontsize=7, loc="lower right")
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110)
    picture = Image.open(buffer).convert("RGB").quantize(64)
    picture.save(FOLDER.parent / "docs/images/frontier.png", optimize=True)


def draw(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    """One line per model that was measured, through the means over seeds."""
    for name, (colour, style, label) in STYLES.items():
        sizes = rows[rows["model"] == name].groupby("size")
        if not len(sizes):
            continue
        x, y = sizes[column].mean().to_numpy(), sizes["gm_ap"].mean().to_numpy()
        bars = [y - sizes["gm_ap"].min().to_numpy(), sizes["gm_ap"].max().to_numpy() - y]
        size = 9 if name == "full bank" else 4
        axes.errorbar(x, y, bars, fmt=style, color=colour, markersize=size, linewidth=1.3, label=label)


if __name__ == "__main__":
    main()
