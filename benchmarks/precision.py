"""What float16 storage and a backbone in bfloat16 or float16 do to every score and metric, on real brains.

OASIS volumes with implanted lesions through ViT-Tiny, tokens kept in float32, against: the same tokens stored in
float16, and a backbone that computes in bfloat16 or float16 (stored in float16). For each variant the largest and mean
change of the patch scores of one model, and every metric minus that of float32 with its 95 % interval over the test
subjects (paired resamples), with the model of float32 (`scored`) and with a model fitted to the variant (`refitted`).
The difference between two seeds of a fit stands beside it as a measure of what matters.
"""

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from backbone import VIT_TINY
from runner import SHARED, Row, arguments, report

from dinodp.backbones import load_backbone
from dinodp.datasets.manifest import read_manifest, select
from dinodp.datasets.sources import prepare_dataset
from dinodp.evaluation.test_split import MaskFiles
from dinodp.families.fitting import fit_mixture
from dinodp.families.scores import score_maps
from dinodp.images import read_image
from dinodp.jobs.logs import progress
from dinodp.metrics import Bootstrap, evaluate_stream
from dinodp.models import DirichletProcessMixture, MemoryBank
from dinodp.options.choices import MIXTURE_SCORES

EVERY = {"train": 4, "valid": 2, "test": 2}
EPOCHS, K, RESAMPLES, BATCH = 8, 200, 500, 8
Tokens = dict[str, torch.Tensor]


class Held:
    """Unit embeddings [n, row, col, D] in memory, as a source of images."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens, self.n_images = torch.nn.functional.normalize(tokens.float(), dim=-1), len(tokens)

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        return self.tokens[list(indices)]


def embed(frames: dict[str, pd.DataFrame], dtype: str, device: str) -> Tokens:
    model = load_backbone(str(VIT_TINY), resolution=448, dtype=dtype, device=device)
    tokens: Tokens = {}
    for split, frame in frames.items():
        images = list(frame["image"])
        batches = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
        parts = [
            model.embed(torch.stack([model.prepare(read_image(path)) for path in batch])).float().cpu()
            for batch in progress(batches, f"{dtype} {split}", total=len(images), per_item=BATCH)
        ]
        tokens[split] = torch.cat(parts)
    return tokens


def fitted(tokens: Tokens, valid: torch.Tensor, seed: int = 0) -> dict[str, DirichletProcessMixture | MemoryBank]:
    mixture = DirichletProcessMixture(K)
    generator = torch.Generator().manual_seed(seed)
    options = {"epochs": EPOCHS, "images_per_batch": 12, "generator": generator, "init": "spread"}
    fit_mixture(mixture, Held(tokens["train"]), Held(valid), **options)
    return {"dpmm": mixture, "memory_bank": MemoryBank().fit(Held(tokens["train"]).tokens.flatten(0, 2))}


def scores_of(models: dict[str, DirichletProcessMixture | MemoryBank], tokens: torch.Tensor) -> dict[str, np.ndarray]:
    source, found = Held(tokens), {}
    for name, model in models.items():
        kinds = list(MIXTURE_SCORES) if name == "dpmm" else ["cosine"]
        parts = [_scores(model, part, kinds) for part in source.tokens.split(BATCH)]
        found |= {f"{name} {kind}": np.concatenate([part[kind] for part in parts]) for kind in kinds}
    return found


def _scores(
    model: DirichletProcessMixture | MemoryBank, tokens: torch.Tensor, kinds: list[str]
) -> dict[str, np.ndarray]:
    x = tokens.flatten(0, 2)
    found = {"cosine": model.distances(x)} if isinstance(model, MemoryBank) else model.scores(x, kinds)
    return score_maps(found, tokens, kinds)


class Evaluator:
    """Metrics and their resamples for one set of models and tokens."""

    def __init__(self, frames: dict[str, pd.DataFrame]) -> None:
        self.test, self.normal = frames["test"], (frames["valid"]["label"] == "normal").to_numpy()
        self.labels = (self.test["label"] == "anomalous").to_numpy()
        self.bootstrap = Bootstrap.of(list(self.test["subject"]), self.labels, RESAMPLES)

    def __call__(self, models: dict[str, DirichletProcessMixture | MemoryBank], tokens: Tokens) -> dict[str, tuple]:
        test, valid = scores_of(models, tokens["test"]), scores_of(models, tokens["valid"])
        found = {}
        for name, maps in test.items():
            result = evaluate_stream(
                maps, MaskFiles(self.test), valid[name][self.normal], image_labels=self.labels, bootstrap=self.bootstrap
            )
            found[name] = (maps, result)
        return found


def differences(name: str, how: str, found: dict[str, tuple], reference: dict[str, tuple]) -> list[Row]:
    rows = []
    for score, (maps, result) in found.items():
        plain_maps, plain = reference[score]
        change = np.abs(maps - plain_maps)
        metrics = {}
        for metric, values in result.replicates.items():
            low, high = np.percentile(values - plain.replicates[metric], [2.5, 97.5])
            minus = result.values[metric] - plain.values[metric]
            metrics[metric] = [float(f"{value:.2g}") for value in (minus, low, high)]
        scale = float(plain_maps.std())
        rows.append(
            {
                "what": f"{name} minus float32",
                "model": how,
                "score": score,
                "score_change_over_its_deviation": {
                    "mean": float(f"{change.mean() / scale:.2g}"),
                    "largest": float(f"{change.max() / scale:.2g}"),
                },
                "metric_minus_and_interval": metrics,
            }
        )
    return rows


def measure(options: Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as place:
        source = {"source": "nifti", "root": str(SHARED / "data/oasis_t1"), "side": 240, "slice_step": 8}
        manifest = read_manifest(prepare_dataset("oasis_t1", source, Path(place) / "out"))
        frames = {split: select(manifest, split).iloc[::step].reset_index() for split, step in EVERY.items()}
        exact = embed(frames, "float32", options.device)
        variants = {"float16 storage": {split: part.half() for split, part in exact.items()}}
        for dtype in ("bfloat16", "float16"):
            tokens = embed(frames, dtype, options.device)
            variants[f"backbone in {dtype}, float16 storage"] = {split: part.half() for split, part in tokens.items()}
        evaluate = Evaluator(frames)
        normal = torch.from_numpy(evaluate.normal.copy())
        models = fitted(exact, exact["valid"][normal])
        reference = evaluate(models, exact)
        rows: list[Row] = [
            {
                "what": "float32",
                "images": {split: len(frame) for split, frame in frames.items()},
                "subjects": int(frames["test"]["subject"].nunique()),
                "values": {
                    score: {name: round(value, 5) for name, value in result.values.items()}
                    for score, (_, result) in reference.items()
                },
            }
        ]
        another = fitted(exact, exact["valid"][normal], seed=1)
        rows += differences("another seed", "refitted", evaluate({"dpmm": another["dpmm"]}, exact), reference)
        for name, tokens in variants.items():
            rows += differences(name, "scored", evaluate(models, tokens), reference)
            refitted = fitted(tokens, tokens["valid"][normal])
            rows += differences(name, "refitted", evaluate(refitted, tokens), reference)
        return rows


if __name__ == "__main__":
    options = arguments(__doc__)
    report("precision", measure(options), options)
