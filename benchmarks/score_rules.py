"""Do wide components explain lesions, and does it help to make them pay? Of validation subjects and artificial lesions.

    python benchmarks/score_rules.py SET EMBEDDINGS.pt LAYER ROWS.csv [--seeds 5]

EMBEDDINGS.pt is of `artificial_lesions.py`. With its ``--folds`` every subject is left out once, and its lesions are
those to be found; else all of the training images are fitted. Maps are smoothed with sigma 4.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from artificial_lesions import layer_of, over_kinds
from frontier_measure import chunks, generator
from runner import set_threads
from torch.nn import functional

from dinodp.models import EmpiricalBayesMixture
from dinodp.models.calibrated_components import quadratic_forms

COMPONENTS, SIGMA, TEMPERATURE = 500, 4.0, 20.0
WIDEST, LESION_KINDS, EVERY = 0.9, ("blob", "missing"), 20  # share that is narrower; healthy patches that are looked at


def penalties(mixture: EmpiricalBayesMixture) -> dict[str, torch.Tensor]:
    """What each rule adds to the quadratic forms of components [K]."""
    volumes = mixture.covariances_.double().log().sum(1)
    above = {"two-sided": volumes - volumes.min(), "one-sided": (volumes - volumes.median()).clamp_min(0)}
    rules = [("two-sided", gamma) for gamma in (0, 0.25, 0.5)] + [("one-sided", gamma) for gamma in (0.5, 1)]
    return {f"{side} gamma {gamma:g}": (gamma * above[side]).float() for side, gamma in rules}


def forms(mixture: EmpiricalBayesMixture, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """Quadratic forms [n, K] of embeddings, a chunk at a time."""
    centre = mixture.means_.mean(0)
    for chunk in x.split(4096):
        yield quadratic_forms(chunk - centre, mixture.means_ - centre, mixture.covariances_)


def distance(mixture: EmpiricalBayesMixture, x: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
    return torch.cat([(form + penalty).amin(1) for form in forms(mixture, x)]).sqrt()


def soft_minimum(mixture: EmpiricalBayesMixture, x: torch.Tensor) -> torch.Tensor:
    parts = [-TEMPERATURE * torch.logsumexp(-form / TEMPERATURE, 1) for form in forms(mixture, x)]
    return (torch.cat(parts) + TEMPERATURE * np.log(COMPONENTS)).clamp_min(0).sqrt()


def in_widest(mixture: EmpiricalBayesMixture, found: dict, layer: str, penalty: torch.Tensor) -> dict[str, float]:
    """Share of lesions' and of healthy patches whose best component is among the widest tenth."""
    volumes = mixture.covariances_.double().log().sum(1)
    wide, shares = volumes > volumes.quantile(WIDEST), {}
    lesions = [found["lesions"][kind] for kind in LESION_KINDS]
    covered = [functional.adaptive_avg_pool2d(torch.from_numpy(each["masks"]).float()[:, None], each["shown"].shape[1:])
               for each in lesions]  # fmt: skip
    for name, step in (("lesion", 1), ("healthy", EVERY)):
        chosen = [(part[:, 0] > 0.5 if name == "lesion" else part[:, 0] == 0) & each["shown"]
                  for part, each in zip(covered, lesions, strict=True)]  # fmt: skip
        x = [layer_of(each["tokens"], layer)[rows][::step] for each, rows in zip(lesions, chosen, strict=True)]
        best = torch.cat([(form + penalty).argmin(1) for form in forms(mixture, torch.cat(x))])
        shares[f"{name}_in_widest"] = round(float(wide[best].double().mean()), 4)
    return shares


def folds(found: dict) -> Iterator[tuple[str, dict]]:
    """What is fitted and what is held out: each subject in turn where held-out subjects are also learnt from."""
    held = np.unique(found["healthy"]["subjects"])
    if not set(held) & set(found["subjects"]):
        yield "all", found
        return
    for subject in held:
        train = found["train"][torch.from_numpy(found["subjects"] != subject)]
        lesions = {kind: of_subject(images, subject) for kind, images in found["lesions"].items()}
        yield subject, {"train": train, "healthy": of_subject(found["healthy"], subject), "lesions": lesions}


def of_subject(images: dict[str, Any], subject: str) -> dict[str, Any]:
    own = np.flatnonzero(images["subjects"] == subject)
    return {key: value[own] for key, value in images.items()}


def rows_of(found: dict, layer: str, seed: int) -> Iterator[dict[str, object]]:
    """A row per rule."""
    x, healthy = layer_of(found["train"], layer), found["healthy"]
    mixture = EmpiricalBayesMixture(COMPONENTS).fit(chunks(x), generator(seed))
    mixture.calibrate(chunks(layer_of(healthy["tokens"], layer)[healthy["shown"]]))
    smallest = {"least_n": round(float(mixture.counts_.min()), 1), "least_variance": float(mixture.covariances_.min())}
    for rule, penalty in penalties(mixture).items():
        values = over_kinds(lambda rows, penalty=penalty: distance(mixture, rows, penalty), found, layer, SIGMA)
        yield {"rule": rule, **values, **in_widest(mixture, found, layer, penalty), **smallest}
    yield {"rule": "soft minimum", **over_kinds(lambda rows: soft_minimum(mixture, rows), found, layer, SIGMA)}


def main() -> None:
    """Write a row for each subject that is left out, seed and rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set")
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("layer", choices=("b6", "last"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    set_threads(1)
    found, rows = torch.load(options.embeddings, weights_only=False), []
    for subject, part in folds(found):
        for seed in range(options.seeds):
            given = {"set": options.set, "layer": options.layer, "left_out": subject, "seed": seed}
            rows += [given | row for row in rows_of(part, options.layer, seed)]
            pd.DataFrame(rows).to_csv(options.out, index=False)
    print(pd.DataFrame(rows).groupby("rule")[["mean_auroc", "gm_ap"]].mean().round(4))


if __name__ == "__main__":
    main()
