"""Draw docs/images/performance.png from the committed results: milliseconds per image against the size of the bank.

python benchmarks/plots.py
"""

import json
from io import BytesIO

import matplotlib as mpl
from PIL import Image
from runner import FOLDER

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"mixture": "#0072b2", "bank": "#d55e00", "backbone": "#777777"}
WIDTHS = {"mixture": 4.0, "bank": 1.5, "backbone": 1.0}  # the mixture lies on the backbone
NAMES = {"mixture": "mixture", "bank": "memory bank", "backbone": "backbone alone"}


def main() -> None:
    content = json.loads((FOLDER / "results/end_to_end-cpu.json").read_text())
    rows = [row for row in content["rows"] if row["what"] == "ms per image"]
    batches = sorted({row["batch"] for row in rows})
    figure, axes = plt.subplots(1, len(batches), figsize=(4.2 * len(batches), 3.4), sharey=True, layout="constrained")
    for axis, batch in zip(axes, batches, strict=True):
        chosen = [row for row in rows if row["batch"] == batch]
        for name, colour in COLOURS.items():
            for measured, style in ((True, "-o"), (False, "--")):
                part = [row for row in chosen if row["measured"] == measured]
                if not measured:  # the dashed line starts at the last measured point
                    part = [max((row for row in chosen if row["measured"]), key=lambda row: row["bank"]), *part]
                x, y = [row["bank"] for row in part], [row["cpu"][name] for row in part]
                label = NAMES[name] if measured else None
                axis.plot(x, y, style, color=colour, markersize=WIDTHS[name] + 2, linewidth=WIDTHS[name], label=label)
        axis.set(xscale="log", yscale="log", xlabel="remembered embeddings", title=f"batch {batch}")
        axis.axvline(7.68e6, color="#bbbbbb", linewidth=1)
        axis.text(7.2e6, axis.get_ylim()[0] * 2, "BraTS2021, all", rotation=90, ha="right", va="bottom", fontsize=8)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("CPU ms per image, 1 thread")
    axes[0].legend(frameon=False, fontsize=9)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110)
    picture = Image.open(buffer).convert("RGB").quantize(32)
    picture.save(FOLDER.parent / "docs/images/performance.png", optimize=True)


if __name__ == "__main__":
    main()
