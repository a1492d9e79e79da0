"""Time, memory and size: measured beside each result, never inside it, so that results keep their bytes."""

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import pandas as pd
import torch

from dinodp.files import read_json, write_json, write_text

KIB_PER_MIB = 1024
BYTES_PER_MIB = 2**20


def set_threads(threads: int) -> None:
    """Let torch use the threads that the rule was given."""
    torch.set_num_threads(max(1, threads))


@contextmanager
def measured() -> Iterator[dict[str, float | str | None]]:
    """Measure the block: seconds, peak host MiB of the process so far, peak GPU MiB (None on the CPU)."""
    cost: dict[str, float | str | None] = {}
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    start = perf_counter()
    yield cost
    cost["seconds"] = perf_counter() - start
    cost["peak_host_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MIB
    cost["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / BYTES_PER_MIB if gpu else None
    cost["device"] = torch.cuda.get_device_name() if gpu else f"cpu, {torch.get_num_threads()} threads"


def write_cost(path: Path, cost: dict[str, float | str | None]) -> None:
    """Write what one job cost as JSON."""
    write_json(path, cost)


def _from_path(path: Path, depth: int) -> list[str]:
    """The wildcards in a result's path: the ``depth`` folders between results/<kind>/ and the file."""
    return list(path.parts[-depth - 1 : -1])


def collect_costs(embeddings: Sequence[Path], fits: Sequence[Path], scores: Sequence[Path], path: Path) -> None:
    """Join the costs of embedding, fitting and scoring to one row per (dataset, embedding, model, seed)."""
    backbone_ms = {tuple(_from_path(file, 2)): _ms_per_image(read_json(file)) for file in embeddings}
    rows = []
    for fit_file, score_file in zip(fits, scores, strict=True):
        dataset, embedding, model = _from_path(fit_file, 3)
        fit, score = read_json(fit_file), read_json(score_file)
        gpu = [value for value in (fit["peak_gpu_mib"], score["peak_gpu_mib"]) if value is not None]
        rows.append(
            {
                "dataset": dataset,
                "embedding": embedding,
                "model": model,
                "seed": int(fit_file.name.split(".")[0].removeprefix("seed-")),
                "fit_seconds": fit["seconds"],
                "backbone_ms_per_image": backbone_ms[dataset, embedding],
                "scoring_ms_per_image": _ms_per_image(score),
                "peak_host_mib": max(fit["peak_host_mib"], score["peak_host_mib"]),
                "peak_gpu_mib": max(gpu) if gpu else None,
                "model_mib": fit["model_mib"],
                "active_components": fit["active_components"],
                "device": score["device"],
            }
        )
    write_text(path, pd.DataFrame(rows).to_csv(index=False))


def _ms_per_image(cost: dict[str, float]) -> float | None:
    return 1000 * cost["seconds"] / cost["images"] if cost["images"] else None
