"""Choose the score of each data set by the lesions of the other two, from the committed results.

python benchmarks/leave_one_set_out.py
"""

import numpy as np
import pandas as pd
from runner import FOLDER


def main() -> None:
    found = pd.read_csv(FOLDER / "results/leave_one_set_out.csv")
    for target in found["set"].unique():
        order = ranking(found, target)
        row = found[(found["set"] == target) & (found["score"] == order.index[0])]
        print(f"{target}: {order.round(3).to_dict()}")
        print(row.groupby("layer")[["auroc", "ap"]].agg(["mean", "std"]).round(3), end="\n\n")


def ranking(found: pd.DataFrame, target: str) -> pd.Series:
    """Scores, best first, by log AP (of its mean over seeds): mean over layers, then over the sets but ``target``."""
    ap = found[found["set"] != target].groupby(["set", "layer", "score"])["ap"].mean()
    return np.log(ap).groupby(["set", "score"]).mean().groupby("score").mean().sort_values(ascending=False)


if __name__ == "__main__":
    main()
