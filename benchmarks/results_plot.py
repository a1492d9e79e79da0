"""Draw docs/images/baselines.png from the tables of docs/results.md: AP against time, the area by the model's size.

python benchmarks/results_plot.py
"""

import re
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from PIL import Image

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

DOCS = Path(__file__).parents[1] / "docs"
SETS = {
    "OASIS": "OASIS T1, implanted lesions",
    "BraTS 2015": "BraTS 2015 FLAIR, tumours",
    "open MS": "Open MS FLAIR, multiple sclerosis",
}
AREA_PER_DECADE, SMALLEST_MIB = 45.0, 0.05


def rows(page: str, heading: str) -> pd.DataFrame:
    """The first score of each model of a table: ``ap``, ``spread``, ``ms`` and ``mib`` by model."""
    section = re.split(r"(?m)^## ", page.split(f"## {heading}\n", 1)[1], maxsplit=1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = [
        {"model": name.strip("`"), "ap": float(ap.split()[0]), "spread": float(ap.split()[2]) if "±" in ap else 0.0,
         "ms": float(ms), "mib": float(mib)}
        for name, _, _, ap, _, _, _, ms, mib in cells
    ]  # fmt: skip
    return pd.DataFrame(found).drop_duplicates("model").set_index("model")


def main() -> None:
    """Write the picture."""
    page = (DOCS / "results.md").read_text()
    tables = {name: rows(page, heading) for name, heading in SETS.items()}
    names = list(next(iter(tables.values())).index)
    colours = dict(zip(names, plt.get_cmap("tab10").colors, strict=True))
    figure, axes = plt.subplots(1, len(tables), figsize=(11, 3.8), layout="constrained")
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        for name, row in table.iterrows():
            area = AREA_PER_DECADE * np.log10(row["mib"] / SMALLEST_MIB)
            axis.errorbar(row["ms"], row["ap"], row["spread"], color=colours[name], linewidth=1)
            look = {"color": colours[name], "edgecolors": "black", "linewidths": 0.4}
            axis.scatter(row["ms"], row["ap"], area, label=name, **look)
        axis.set(xscale="log", xlabel="scoring, ms per image", title=title)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("pixel AP, first score (bars: seeds)")
    handles, labels = axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    for handle in legend.legend_handles:
        handle.set_sizes([40])
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110)
    Image.open(buffer).convert("RGB").quantize(128).save(DOCS / "images/baselines.png", optimize=True)


if __name__ == "__main__":
    main()
