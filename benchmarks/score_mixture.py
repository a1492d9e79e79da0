"""Scoring with a mixture, the paper's and ours: its share of the time per image, beside the backbone's forward pass.

Reach: 2 % of the end-to-end time per image. Every patch is scored, as of an image without background.
"""

import tempfile
from argparse import Namespace
from pathlib import Path

import torch
from backbone import WEIGHTS, backbone, backbone_names
from made_data import clustered, slices
from runner import Row, alternate, arguments, report

from dinodp.backbones import Backbone
from dinodp.families.scores import score_maps
from dinodp.images import read_image
from dinodp.models import DirichletProcessMixture, EmpiricalBayesMixture
from dinodp.options.choices import MIXTURE_SCORES

BATCH, OURS = 8, "calibrated_distance"


def fitted(dim: int, device: str, k: int = 500, kind: str = "diag") -> DirichletProcessMixture:
    x = clustered(12_288, dim)
    mixture = DirichletProcessMixture(k, kind, device=device)
    mixture.initialize(x, generator=torch.Generator().manual_seed(0))
    for _ in range(10):
        mixture.partial_fit(x)
    return mixture


def fitted_ours(dim: int, device: str, k: int = 500) -> EmpiricalBayesMixture:
    x = clustered(24_576, dim)
    mixture = EmpiricalBayesMixture(k, device=device, passes=3)
    return mixture.fit(lambda: x.split(4096), torch.Generator().manual_seed(0))


def score_against_forward(name: str, model: Backbone, path: Path, device: str, repeats: int, scores: list[str]) -> Row:
    pixels = torch.stack([model.prepare(read_image(path))] * BATCH).to(device)
    tokens = torch.nn.functional.normalize(model.embed(pixels).float(), dim=-1)
    ours = "calibrated_distance" in scores
    mixture = fitted_ours(tokens.shape[-1], device) if ours else fitted(tokens.shape[-1], device)

    def score() -> None:
        score_maps(mixture.scores(tokens.flatten(0, 2), scores), tokens, scores)

    row = alternate(score, lambda: model.embed(pixels), repeats)
    share = {kind: [float(f"{r / (1 + r):.3g}") for r in values] for kind, values in row["ratio"].items()}
    about: Row = {"mixture": "ours" if ours else "the paper's", "backbone": name, "weights": WEIGHTS[name]}
    about["active"] = int(mixture.active_.sum())
    about |= {"scores": scores, "batch": BATCH, "share_of_time_per_image": share}
    return {"what": "scoring / forward pass", **about, **row}


def measure(options: Namespace) -> list[Row]:
    small, device = options.small, options.device
    rows = []
    with tempfile.TemporaryDirectory() as place:
        (path,) = slices(Path(place), 1)
        for name in backbone_names(small):
            model = backbone(name, Path(place), device)
            for scores in (["cosine"],) if small else (["cosine"], list(MIXTURE_SCORES), [OURS], [OURS, "mahalanobis"]):
                rows.append(score_against_forward(name, model, path, device, options.repeats, scores))
    return rows


if __name__ == "__main__":
    options = arguments(__doc__)
    report("score_mixture", measure(options), options)
