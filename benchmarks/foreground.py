"""Does a backbone that sees the body only pay? ViT-Tiny on volumes of OASIS: time, tokens, lesions; batches, processes.

`cropped`: the pixels of the rows and columns of patches in which a volume shows anything, with positions resized to
that grid. `dropped`: all positions stay, patches of a slice that are all black are left out before the first block, one
slice at a time. Both against the whole canvas, after block 6 and after the last: time, 1 - cosine of the tokens of
foreground patches, and discs drawn into slices of validation subjects, found by distances to the nearest embedding of
the foreground of healthy slices (`same`: of the whole canvas; `anew`: of the cut one).
Beside it: other batches than 4 slices, and two processes of one thread against one of two (wall time).
"""

import multiprocessing
from argparse import Namespace
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from backbone import VIT_TINY
from runner import SHARED, Row, alternate, arguments, report, set_threads
from sklearn.metrics import average_precision_score, roc_auc_score

from dinodp.backbones import Backbone, load_backbone
from dinodp.backbones.vision_transformer import _block_list
from dinodp.models import MemoryBank
from dinodp.scans.detecting.fitting import measure as measure_scans
from dinodp.scans.detecting.fitting import unread_scans
from dinodp.scans.detecting.preparation import Preparation
from dinodp.scans.detecting.settings import Settings

LEARNT, TESTED, EVERY, BATCH = 4, 2, 12, 4  # volumes, volumes, one slice of so many, slices
LAYERS = (6, -1)
RADII, CHANGES = (10, 24), (0.15, 0.35)  # of a disc, pixels; of its grey values, of 1
SEEDS = range(4)  # of the discs
Volumes = list[torch.Tensor]  # slices [n, 3, H, W] each
Embed = Callable[[torch.Tensor], torch.Tensor]


def volumes(split: str, number: int, backbone: Backbone) -> Volumes:
    files = sorted((SHARED / "data/oasis_t1" / split).glob("*_t1.nii.gz"))[:number]
    settings = Settings(str(VIT_TINY))
    unread = unread_scans([(file.name, file) for file in files], settings)
    preparation = Preparation(settings, measure_scans(unread, settings)[0])
    prepared = (preparation.of(scan.read(preparation.healthy.axes), EVERY) for scan in unread)
    return [torch.stack([backbone.prepare(picture) for picture in scan.pictures()]) for scan in prepared]


def shown(pixels: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Which patches [n, row, col] show anything."""
    black = (0 - torch.tensor(backbone.mean)) / torch.tensor(backbone.std)
    light = (pixels - black.view(1, 3, 1, 1)).amax(1, keepdim=True)
    return torch.nn.functional.max_pool2d(light, backbone.patch_size)[:, 0] > 1e-4


def box(pixels: torch.Tensor, backbone: Backbone) -> tuple[slice, slice]:
    """Rows and columns of patches in which a volume shows anything."""
    seen = shown(pixels, backbone).any(0)
    found = [torch.nonzero(seen.any(1 - axis)).flatten() for axis in (0, 1)]
    return slice(int(found[0][0]), int(found[0][-1]) + 1), slice(int(found[1][0]), int(found[1][-1]) + 1)


def whole(pixels: torch.Tensor, backbone: Backbone, batch: int = BATCH) -> torch.Tensor:
    return torch.cat([backbone.embed(part) for part in pixels.split(batch)])


def cropped(pixels: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Tokens [n, row, col, D] of the box; zero elsewhere."""
    rows, columns = box(pixels, backbone)
    size = backbone.patch_size
    cut = pixels[:, :, rows.start * size : rows.stop * size, columns.start * size : columns.stop * size]
    found = whole(cut.contiguous(), backbone)
    out = torch.zeros(len(pixels), *(side // size for side in pixels.shape[2:]), found.shape[-1])
    out[:, rows, columns] = found
    return out


@torch.inference_mode()
def dropped(pixels: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Tokens [n, row, col, D] of the patches that show anything; zero elsewhere."""
    tokens, seen = backbone._tokens, shown(pixels, backbone)
    model = tokens.model
    out = torch.zeros(*seen.shape, backbone.dim)
    for picture, inside, target in zip(pixels, seen, out, strict=True):
        hidden = model.embeddings(picture[None], interpolate_pos_encoding=True)
        hidden = torch.cat([hidden[:, :1], hidden[:, 1:][:, inside.flatten()]], dim=1)
        layers = []
        for number, block in enumerate(_block_list(model), 1):
            hidden = block(hidden)
            if number in tokens.blocks:
                layers.append(torch.nn.functional.normalize(model.layernorm(hidden)[0, 1:], dim=-1))
        target[inside] = torch.cat(layers, dim=-1)
    return out


def with_discs(pixels: torch.Tensor, backbone: Backbone, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices with a disc each, lighter or darker, and which patches it covers by half [n, row, col]."""
    generator, size = np.random.default_rng(seed), backbone.patch_size
    changed, masks = pixels.clone(), torch.zeros(len(pixels), *pixels.shape[2:])
    y, x = np.mgrid[: pixels.shape[2], : pixels.shape[3]]
    deviation = torch.tensor(backbone.std).view(3, 1, 1)
    for index, inside in enumerate(shown(pixels, backbone)):
        places = torch.nonzero(inside).numpy()
        row, column = (places[generator.integers(len(places))] + 0.5) * size
        disc = torch.from_numpy(np.hypot(y - row, x - column) < generator.uniform(*RADII))
        disc &= torch.nn.functional.interpolate(inside[None, None].float(), scale_factor=size)[0, 0] > 0
        change = generator.choice([-1, 1]) * generator.uniform(*CHANGES)
        changed[index] += disc * float(change) / deviation
        masks[index] = disc
    return changed, torch.nn.functional.avg_pool2d(masks[:, None], size)[:, 0] > 0.5


def layer_of(tokens: torch.Tensor, number: int) -> torch.Tensor:
    return tokens.unflatten(-1, (len(LAYERS), -1))[..., number, :]


def found_discs(learnt: torch.Tensor, tokens: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """AUROC and average precision of the distance to the nearest learnt embedding."""
    distances = MemoryBank().fit(learnt).distances(tokens)
    return np.array([roc_auc_score(labels, distances), average_precision_score(labels, distances)])


def in_foreground(embed: Embed, parts: Volumes, backbone: Backbone) -> torch.Tensor:
    """Tokens [n, D] of the patches that show anything."""
    return torch.cat([embed(pixels)[shown(pixels, backbone)] for pixels in parts])


def accuracy(variants: dict[str, Embed], learnt: Volumes, tested: Volumes, backbone: Backbone) -> list[Row]:
    """Drift, and what is lost of the discs: minus the whole canvas, mean and extremes over the seeds of the discs."""
    plain = partial(whole, backbone=backbone)
    banks = {name: in_foreground(embed, learnt, backbone) for name, embed in {"whole": plain, **variants}.items()}
    differences: dict[tuple[str, int, str], list[np.ndarray]] = {}
    values: dict[int, list[np.ndarray]] = {}
    drifts: dict[tuple[str, int], list[float]] = {}
    for seed in SEEDS:
        drawn = [with_discs(pixels, backbone, seed) for pixels in tested]
        parts = [pixels for pixels, _ in drawn]
        labels = torch.cat([mask[shown(pixels, backbone)] for pixels, mask in drawn]).numpy()
        exact = in_foreground(plain, parts, backbone)
        for name, embed in variants.items():
            tokens = in_foreground(embed, parts, backbone)
            for number, layer in enumerate(LAYERS):
                of = partial(layer_of, number=number)
                reference = found_discs(of(banks["whole"]), of(exact), labels)
                values.setdefault(layer, []).append(reference)
                cosine = torch.nn.functional.cosine_similarity(of(tokens), of(exact), dim=-1)
                drifts.setdefault((name, layer), []).append(float(1 - cosine.mean()))
                for model, bank in (("same", banks["whole"]), ("anew", banks[name])):
                    lost = found_discs(of(bank), of(tokens), labels) - reference
                    differences.setdefault((name, layer, model), []).append(lost)
    return [
        {
            "what": f"{name} minus whole canvas, block {layer}, {model}",
            "drift": float(f"{np.mean(drifts[name, layer]):.2g}"),
            "auroc_ap_of_whole": np.mean(values[layer], axis=0).round(4).tolist(),
            "minus": np.mean(found, axis=0).round(4).tolist(),
            "least": np.min(found, axis=0).round(4).tolist(),
            "most": np.max(found, axis=0).round(4).tolist(),
        }
        for (name, layer, model), found in differences.items()
    ]


_backbone: Backbone | None = None


def begin() -> None:
    """A process of its own, with one thread."""
    global _backbone
    set_threads(1)
    _backbone = load_backbone(str(VIT_TINY), resolution=448)


def embed_here(pixels: torch.Tensor) -> int:
    assert _backbone is not None
    return len(whole(pixels, _backbone))


def processes_against_threads(pixels: torch.Tensor, repeats: int) -> Row:
    plain = load_backbone(str(VIT_TINY), resolution=448)
    halves = pixels.chunk(2)
    with multiprocessing.get_context("spawn").Pool(2, begin) as pool:
        set_threads(2)
        row = alternate(lambda: pool.map(embed_here, halves, 1), partial(whole, pixels, plain), repeats)
    set_threads(1)
    for side in ("ours_s", "other_s", "ratio"):
        del row[side]["cpu"]  # that of the pool is not this process's
    return {"what": "two processes of one thread / one of two", "slices": len(pixels), **row}


def measure(options: Namespace) -> list[Row]:
    backbone = load_backbone(str(VIT_TINY), resolution=448, layers=LAYERS)
    learnt, tested = (volumes(split, number, backbone) for split, number in (("train", LEARNT), ("valid", TESTED)))
    variants: dict[str, Embed] = {
        "cropped": partial(cropped, backbone=backbone), "dropped": partial(dropped, backbone=backbone)
    }  # fmt: skip
    pixels = tested[0]
    share = float(shown(pixels, backbone).float().mean())
    rows: list[Row] = []
    for name, embed in variants.items():
        row = alternate(partial(embed, pixels), partial(whole, pixels, backbone), options.repeats)
        rows.append({"what": f"{name} / whole canvas", "slices": len(pixels), "share_of_patches": share, **row})
    for batch in (1, 8):
        row = alternate(partial(whole, pixels, backbone, batch), partial(whole, pixels, backbone), options.repeats)
        rows.append({"what": f"batches of {batch} / of {BATCH}", "slices": len(pixels), **row})
    rows.append(processes_against_threads(pixels[:16], options.repeats))
    return rows + accuracy(variants, learnt, tested, backbone)


if __name__ == "__main__":
    options = arguments(__doc__)
    report("foreground", measure(options), options)
