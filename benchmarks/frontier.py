"""Draw docs/images/frontier.png from the committed results: accuracy against number of vectors and against time.

python benchmarks/frontier.py
"""

import csv
from collections import defaultdict
from io import BytesIO

import matplotlib as mpl
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
    "full bank": ("#000000", "*", "whole bank"),
}
AXES = {"vectors": "vectors", "cpu_ms_784": "CPU ms per 784 patches, 1 thread"}


def main() -> None:
    with (FOLDER / "results/frontier_oasis_b6.csv").open() as file:
        rows = list(csv.DictReader(file))
    figure, panels = plt.subplots(1, 2, figsize=(8.6, 3.6), sharey=True, layout="constrained")
    for axes, (column, label) in zip(panels, AXES.items(), strict=True):
        draw(axes, rows, column)
        axes.set(xscale="log", xlabel=label)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("AP of artificial lesions\n(geometric mean over five kinds)")
    panels[1].legend(frameon=False, fontsize=7.5, loc="lower right")
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110)
    picture = Image.open(buffer).convert("RGB").quantize(64)
    picture.save(FOLDER.parent / "docs/images/frontier.png", optimize=True)


def draw(axes: Axes, rows: list[dict[str, str]], column: str) -> None:
    """One line per model."""
    points = defaultdict(list)
    for row in rows:
        points[row["model"]].append((float(row[column]), float(row["gm_ap"])))
    for name, (colour, style, label) in STYLES.items():
        x, y = zip(*sorted(points[name]), strict=True)
        axes.plot(x, y, style, color=colour, markersize=9 if name == "full bank" else 4, linewidth=1.3, label=label)


if __name__ == "__main__":
    main()
