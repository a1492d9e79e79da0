"""What an engine or a dtype of the backbone costs in accuracy, paired over subjects, from a run of config/engines.yaml.

    snakemake --cores 2 --configfile config/engines.yaml && python benchmarks/engine_losses.py

Each embedding minus that of PyTorch in float32 of the same layer, with the same resamples of the subjects: under the
`same` model, which was fitted to PyTorch's, and under one that was fitted `anew`, whose start falls another way, as
under another seed.
Writes benchmarks/results/engines.csv; no interval where fewer than three subjects have an anomaly.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
import yaml
from runner import FOLDER

from dinodp import store
from dinodp.datasets.manifest import manifest_digest, read_manifest, select
from dinodp.embeddings import EmbeddingReader
from dinodp.evaluation.intervals import interval
from dinodp.evaluation.test_split import evaluate_scores
from dinodp.families import model_options
from dinodp.families.stages import load_model, open_split, score_split
from dinodp.jobs.files import read_json
from dinodp.options.protocol import Protocol

RESULTS, MODEL, RULE = Path("results"), "eb_dpmm", "gt0"
METRICS = ("pixel_auroc", "pixel_average_precision", "aupro_30", "dice_fpr05", "image_auroc")
Found = dict[tuple[str, str], tuple[float, np.ndarray]]
CATALOG, RUN = (yaml.safe_load(Path("config", name).read_text()) for name in ("catalog.yaml", "engines.yaml"))
OPTIONS = model_options({**CATALOG["models"][MODEL], **RUN["models"][MODEL]})


def reference_of(embedding: str) -> str:
    """PyTorch in float32 of the same layer."""
    return "vit_tiny_layer6" if "layer6" in embedding else "vit_tiny"


def under_the_same_model(dataset: str, embedding: str, folder: Path) -> tuple[Path, Path]:
    """Metrics and curves of an embedding under the model of its reference."""
    reference = reference_of(embedding)
    manifest = read_manifest(RESULTS / "data" / dataset / "manifest.csv")
    learnt = RESULTS / "embeddings" / dataset / reference / "train.h5"
    train = open_split(learnt, OPTIONS, None, manifest, "train", normal_only=True)
    model = load_model(RESULTS / "models" / dataset / reference / MODEL / "seed-0.h5", OPTIONS, train, device="cpu")
    paths = {}
    for split in ("test", "valid"):
        tokens = RESULTS / "embeddings" / dataset / embedding / f"{split}.h5"
        source, paths[split] = open_split(tokens, OPTIONS, None, manifest, split), folder / f"{split}.h5"
        made_from = {"manifest": manifest_digest(manifest), "model": "reference"}
        rows = select(manifest, split)
        score_split(model, source, rows, paths[split], background=OPTIONS.background, made_from=made_from)
    evaluate_scores(
        test_scores=paths["test"], valid_scores=paths["valid"], manifest=manifest, labels={},
        protocol=Protocol(mask_rules=(RULE,), smoothing_sigma=RUN["run"]["smoothing_sigma"], resamples=1000),
        metrics_path=folder / "metrics.json", curves_path=folder / "curves.h5",
    )  # fmt: skip
    return folder / "metrics.json", folder / "curves.h5"


def drift_of(dataset: str, embedding: str) -> float:
    """1 - cosine to the tokens of the reference, both as stored in float16: mean over the patches of the test split."""
    paths = [RESULTS / "embeddings" / dataset / name / "test.h5" for name in (reference_of(embedding), embedding)]
    plain, other = (EmbeddingReader(path, normalise=False, grid=None) for path in paths)
    parts = []
    for image in range(plain.n_images):
        found, exact = (reader.read([image]).double() for reader in (other, plain))
        parts.append(1 - float(torch.nn.functional.cosine_similarity(found, exact, dim=-1).mean()))
    return float(np.mean(parts))


def values_of(metrics: Path, curves: Path) -> Found:
    """By score and metric: value and resamples."""
    content = read_json(metrics)
    with h5py.File(curves) as file:
        return {
            (score, name): (float(rules[RULE][name]), file[f"replicates/{score}/{RULE}/{name}"][()])
            for score, rules in content["metrics"].items()
            for name in METRICS
        }


def rows_of(labels: dict[str, str], found: Found, exact: Found, n_subjects: int) -> Iterator[dict[str, object]]:
    for place, (value, replicates) in found.items():
        plain, plain_replicates = exact[place]
        low, high = interval(value - plain, replicates - plain_replicates, n_subjects, difference=True)
        score, metric = place
        yield {**labels, "score": score, "metric": metric, "value": value, "minus": value - plain,
               "low": low, "high": high}  # fmt: skip


def main() -> None:
    rows: list[dict[str, object]] = []
    for dataset in RUN["run"]["datasets"]:
        with tempfile.TemporaryDirectory() as place:
            same = {}
            for embedding in RUN["run"]["embeddings"]:
                folder = Path(place, embedding)
                folder.mkdir()
                metrics, curves = under_the_same_model(dataset, embedding, folder)
                same[embedding] = values_of(metrics, curves)
                with store.reading(curves, "curves") as file:
                    n_subjects = int(store.config_of(file)["anomalous_subjects"])
            for embedding, found in same.items():
                own = Path(dataset, embedding, MODEL, "seed-0")
                drift = {"set": dataset, "embedding": embedding, "score": "tokens", "metric": "one_minus_cosine"}
                rows.append({**drift, "value": drift_of(dataset, embedding)})
                files = RESULTS / "metrics" / own.with_suffix(".json"), RESULTS / "curves" / own.with_suffix(".h5")
                for model, values in (("same", found), ("anew", values_of(*files))):
                    labels = {"set": dataset, "embedding": embedding, "model": model}
                    rows += rows_of(labels, values, same[reference_of(embedding)], n_subjects)
    table = pd.DataFrame(rows)
    table.to_csv(FOLDER / "results/engines.csv", index=False, float_format="%.5g")
    print(table.to_string(float_format="%.5g"))


if __name__ == "__main__":
    main()
