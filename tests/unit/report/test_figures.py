"""Figures: registered, drawn from the data given, saved with the same bytes each time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from dinodp.errors import InputError
from dinodp.report.figures import FIGURES, FigureData, ModelData, draw_figure, save_figure
from dinodp.report.figures.examples import (
    lesion_fractions,
    patch_coverage,
    read_grey_image,
    select_examples,
)

GRID, SIDE, DIM, COMPONENTS, IMAGES = 16, 128, 12, 20, 9
NAMES = {
    "anomaly_maps", "component_maps", "frontier", "score_histograms", "roc_pr_curves", "training_history",
    "pca_components", "froc",
}  # fmt: skip


def write_phantoms(folder: Path, rng: np.random.Generator) -> pd.DataFrame:
    """Grey ellipses with bright round lesions of growing size; every third image is normal."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    rows = []
    for index in range(IMAGES):
        body = (x / 0.38) ** 2 + (y / 0.45) ** 2 < 1
        image = body * (90 + 30 * np.cos(9 * x) * np.cos(7 * y)) + rng.normal(0, 4, (SIDE, SIDE))
        normal = index % 3 == 0
        lesion = (x - 0.1) ** 2 + (y + 0.1) ** 2 < (0.02 + 0.02 * index) ** 2
        mask = "" if normal else str(folder / f"mask{index}.png")
        if mask:
            image = image + 80 * lesion
            Image.fromarray(np.uint8(255 * lesion)).save(mask)
        path = folder / f"image{index}.png"
        Image.fromarray(np.uint8(np.clip(image, 0, 255))).save(path)
        rows.append({"split": "test", "label": "normal" if normal else "anomalous", "image": str(path), "mask": mask})
    return pd.DataFrame(rows)


def make_model(name: str, family: str, coverage: np.ndarray, rng: np.random.Generator, low: float) -> ModelData:
    score = 0.2 + 0.25 * coverage + rng.gamma(2, low, coverage.shape)
    fpr = np.linspace(0, 1, 50)
    curves = {"fpr": fpr, "tpr": fpr**low, "recall": fpr, "precision": 0.9 - 0.87 * fpr}
    normal = 0.2 + rng.gamma(2, low, (3, GRID, GRID))
    thresholds = {f"threshold_fpr{p:02d}": float(np.quantile(normal, 1 - p / 100)) for p in (10, 5, 1)}
    return ModelData(
        name=name,
        family=family,
        scores={"cosine": score.astype(np.float32)},
        normal_validation={"cosine": normal},
        image_scores={"cosine": score.max(axis=(1, 2))},
        curves={"cosine": curves},
        thresholds={"cosine": thresholds},
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FigureData:
    rng = np.random.default_rng(3)
    manifest = write_phantoms(tmp_path_factory.mktemp("phantoms"), rng)
    coverage = patch_coverage(manifest, (GRID, GRID), "gt0")
    means = rng.normal(0, 1, (COMPONENTS, DIM)) * np.linspace(2, 0.2, DIM)
    patches = (np.add.outer(np.arange(GRID), np.arange(GRID)) // 3) % COMPONENTS
    chosen = np.stack([np.roll(patches, index, axis=0) for index in range(IMAGES)])
    tokens = means[chosen] + rng.normal(0, 0.15, (*chosen.shape, DIM))
    epochs = np.arange(1, 21)
    history = {
        "epoch": epochs,
        "train_log_likelihood": 900 - 300 / epochs,
        "validation_log_likelihood": 880 - 300 / epochs - 0.05 * (epochs - 12) ** 2,
        "active_components": 120 - 5 * epochs,
        "concentration": 2 + 0.1 * epochs,
    }
    mixture = replace(
        make_model("dpmm_diag", "dpmm", coverage, rng, 0.03),
        metrics={"cosine": {"pixel_average_precision": 0.5}},
        vectors=20,
        history=history,
        chosen_epoch=14,
        means=means,
        covariances_diag=np.full((COMPONENTS, DIM), 0.15**2),
        weights=np.arange(COMPONENTS, 0, -1) / 210,
        assignments=lambda rows: chosen[list(rows)],
    )
    bank = replace(
        make_model("memory_bank", "memory_bank", coverage, rng, 0.02),
        metrics={"cosine": {"pixel_average_precision": 0.4}},
        vectors=5000,
        scoring_ms=30.0,
        model_mib=7.5,
    )
    return FigureData(
        title="phantoms, synthetic",
        manifest=manifest,
        models=[bank, mixture],
        read_tokens=lambda rows: tokens[list(rows)].astype(np.float32),
    )


def texts(figure: Figure) -> str:
    """All words on a figure."""
    return "\n".join(item.get_text() for item in figure.findobj(Text))


def test_every_module_with_draw_is_registered() -> None:
    assert set(FIGURES) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_figure_is_saved_with_equal_bytes(name: str, data: FigureData, tmp_path: Path) -> None:
    for attempt in ("a", "b"):
        save_figure(FIGURES[name](data), tmp_path / attempt / "f.png", tmp_path / attempt / "f.pdf")
    for kind in ("png", "pdf"):
        first, second = (tmp_path / attempt / f"f.{kind}" for attempt in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
        assert b"CreationDate" not in first.read_bytes()
    pixels = np.asarray(Image.open(tmp_path / "a/f.png").convert("L"))
    assert pixels.shape[1] == pytest.approx(180 / 25.4 * 300, abs=2)
    assert 0.005 < (pixels < 200).mean() < 0.9
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["f.pdf", "f.png"]


@pytest.mark.parametrize(
    ("name", "axes", "words"),
    [
        ("anomaly_maps", 4 * 4 + 2, ["Largest lesion", "Median lesion", "Smallest lesion", "Normal image", "cosine"]),
        ("component_maps", 2 * 4 + 1, ["20 active components", "Normal image"]),
        ("score_histograms", 2, ["10 %", "5 %", "1 %", "Density", "covers > 50 %", "1 − max cosine similarity"]),
        ("roc_pr_curves", 2, ["False positive rate", "Recall", "prevalence 3 %", "dpmm_diag", "memory_bank"]),
        ("frontier", 3, ["Vectors", "ms per image", "MiB", "Pixel average precision", "memory_bank", "first seed"]),
        ("froc", 1, ["False regions per image", "Lesions found", "% at 1, 2, 4", "dpmm_diag", "memory_bank"]),
        ("training_history", 2, ["Epoch", "nat per patch", "Chosen epoch", "Active components"]),
        ("pca_components", 1, ["% of variance", "1 standard deviation", "2 standard deviations", "12 heaviest of 20"]),
    ],
)
def test_figure_shows(name: str, axes: int, words: list[str], data: FigureData) -> None:
    figure = FIGURES[name](data)
    shown = texts(figure)
    assert len(figure.axes) == axes
    assert all(word in shown for word in words)
    sizes = [item.get_fontsize() for item in figure.findobj(Text)]
    assert min(sizes) >= 7


@pytest.mark.parametrize("name", ["component_maps", "training_history", "pca_components"])
def test_figure_of_a_mixture_needs_a_mixture(name: str, data: FigureData) -> None:
    with pytest.raises(InputError, match=f"'{name}' needs a mixture"):
        FIGURES[name](replace(data, models=data.models[:1]))


def test_the_frontier_is_at_the_costs_and_precisions_of_the_models(data: FigureData) -> None:
    drawn = [[line.get_xydata().tolist() for line in axes.lines] for axes in FIGURES["frontier"](data).axes]
    assert drawn == [  # nothing is known of the mixture's time and size
        [[[5000, 0.4]], [[20, 0.5]]],
        [[[30.0, 0.4]], []],
        [[[7.5, 0.4]], []],
    ]
    without = [replace(model, metrics={}) for model in data.models]
    with pytest.raises(InputError, match="'frontier' needs the average precision of a model, and none has one"):
        FIGURES["frontier"](replace(data, models=without))


def test_froc_needs_lesions_and_ends_where_false_regions_are_too_many(data: FigureData) -> None:
    for line in FIGURES["froc"](data).axes[0].lines[:2]:
        assert (np.diff(line.get_ydata()) >= 0).all()
        assert max(line.get_xdata()) <= 8
    with pytest.raises(InputError, match="'froc' needs masks of lesions, or boxes, and the test split has none"):
        FIGURES["froc"](replace(data, manifest=data.manifest.assign(mask="")))


def test_boxes_are_outlined_and_counted(data: FigureData) -> None:
    """Boxes around the lesions of the masks: the mask of one lesion is within its box, so no fewer are found."""
    boxes = []
    for path in data.manifest["mask"]:
        rows, columns = np.nonzero(np.asarray(Image.open(path))) if path else ((), ())
        sides = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1) if path else ()
        boxes.append(" ".join(map(str, sides)))
    boxed = replace(data, manifest=data.manifest.assign(mask="", boxes=boxes))
    assert "Lesion outline" in texts(FIGURES["anomaly_maps"](boxed))
    for masks, own in zip(*(FIGURES["froc"](given).axes[0].lines[:2] for given in (data, boxed)), strict=True):
        assert max(own.get_ydata()) >= max(masks.get_ydata()) > 0


def test_froc_ends_where_false_regions_grow_together(data: FigureData) -> None:
    """Two peaks above a rising floor: two regions at high thresholds, one at low ones."""
    model = data.models[0]
    score, maps = model.primary_score, model.scores[model.primary_score]
    peaks = np.zeros(maps.shape[1:], dtype=np.float32)
    peaks[0, 0] = peaks[-1, -1] = 1
    one = peaks + np.linspace(0, 0.5, maps.shape[2], dtype=np.float32)
    merging = replace(model, scores={**model.scores, score: np.repeat(one[None], len(maps), axis=0)})
    line = FIGURES["froc"](replace(data, models=[merging])).axes[0].lines[0]
    assert line.get_xdata()[-1] == max(line.get_xdata()) > 0


def test_a_mixture_of_full_passes_has_a_bound_and_no_chosen_epoch(data: FigureData) -> None:
    history = {"epoch": np.arange(1, 4), "bound": np.array([1.0, 2, 3]), "active_components": np.array([9, 9, 8])}
    ours = replace(data.models[1], name="ours", family="eb_mixture", history=history, chosen_epoch=None)
    both = texts(FIGURES["training_history"](replace(data, models=[data.models[1], ours])))
    assert all(word in both for word in ("dpmm_diag", "ours", "Bound (training)", "Validation", "Chosen epoch"))
    alone = texts(FIGURES["training_history"](replace(data, models=[ours])))
    assert "Chosen epoch" not in alone
    assert "20 active components" in texts(FIGURES["component_maps"](replace(data, models=[ours])))


WITHOUT = {
    "masks": lambda test: test.assign(mask=""),
    "anomalous images": lambda test: test.assign(mask="", label="normal"),
    "normal images": lambda test: test.assign(label="anomalous"),
    "normal images and masks": lambda test: test.assign(label="anomalous", mask=""),
}


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("what", WITHOUT)
def test_figures_without_a_class_or_masks(name: str, what: str, data: FigureData) -> None:
    shown = texts(draw_figure(name, replace(data, manifest=WITHOUT[what](data.manifest))))
    assert "nan" not in shown.lower()
    if name in ("anomaly_maps", "component_maps"):
        assert ("Anomalous image\n(no mask)" in shown) == (what in ("masks", "normal images and masks"))
        assert ("Lesion outline" in shown) == (what == "normal images" and name == "anomaly_maps")
        assert ("Normal image" in shown) == ("normal images" not in what)
    if name == "score_histograms":
        said = {"masks": "in an anomalous image (there are no masks)", "anomalous images": "no test image is anomalous"}
        assert said.get(what, "anomalous = ") in shown


def test_what_a_run_cannot_show_is_said_in_place_of_the_figure(data: FigureData, tmp_path: Path) -> None:
    bank = replace(data, models=data.models[:1])
    for name in ("component_maps", "training_history", "pca_components"):
        figure = draw_figure(name, bank)
        assert f"Left out: Figure '{name}' needs a mixture" in texts(figure).replace("\n", " ")
        save_figure(figure, tmp_path / "f.png", tmp_path / "f.pdf")
    assert draw_figure("anomaly_maps", bank).axes


def test_curves_are_needed(data: FigureData) -> None:
    with pytest.raises(InputError, match="pixel-wise curves"):
        FIGURES["roc_pr_curves"](replace(data, models=[replace(model, curves={}) for model in data.models]))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_no_models_is_an_input_error(name: str, data: FigureData) -> None:
    with pytest.raises(InputError):
        FIGURES[name](replace(data, models=[]))


def test_cases_are_ordered_by_lesion_size(data: FigureData) -> None:
    fractions = lesion_fractions(data.manifest, "gt0")
    rows = [case.row for case in select_examples(data)]
    assert rows[0] == 8
    assert rows[2] == 1
    assert fractions[rows[0]] > fractions[rows[1]] > fractions[rows[2]] > fractions[rows[3]] == 0


def test_patch_coverage_is_the_share_of_the_patch(tmp_path: Path) -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[0, :3] = 1
    Image.fromarray(mask).save(tmp_path / "m.png")
    manifest = pd.DataFrame({"label": ["anomalous", "normal", "anomalous"], "mask": [str(tmp_path / "m.png"), "", ""]})
    coverage = patch_coverage(manifest, (2, 2), "gt0")
    np.testing.assert_allclose(coverage[0], [[0.5, 0.25], [0, 0]])
    assert (coverage[1] == 0).all()
    assert np.isnan(coverage[2]).all()


@pytest.mark.parametrize("kind", ["LA", "P"])
def test_what_is_outlined_is_what_is_lesion(kind: str, data: FigureData, tmp_path: Path) -> None:
    """Nine pixels of a mask with alpha, or with a palette in which the colour 0 is not black."""
    grey = np.zeros((8, 8), np.uint8)
    grey[2:5, 3:6] = 255
    picture = Image.fromarray(grey).convert(kind) if kind == "LA" else Image.fromarray(np.uint8(grey == 0), mode="P")
    if kind == "P":
        picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.save(tmp_path / "m.png")
    manifest = data.manifest.iloc[:1].assign(mask=str(tmp_path / "m.png"), label="anomalous")
    assert lesion_fractions(manifest, "gt0") == 9 / 64
    figure = FIGURES["anomaly_maps"](replace(data, manifest=manifest, models=data.models[:1]))
    (outline,) = figure.axes[1].collections[0].get_paths()[0].to_polygons()
    assert outline.min(axis=0).tolist() == [2.5, 1.5]
    assert outline.max(axis=0).tolist() == [5.5, 4.5]


def test_the_rule_of_the_run_says_what_is_outlined(data: FigureData, tmp_path: Path) -> None:
    levels = np.zeros((8, 8), np.uint8)
    levels[1:7, 1:7] = 58
    levels[2:5, 3:6] = 255
    Image.fromarray(levels).save(tmp_path / "m.png")
    manifest = data.manifest.iloc[:1].assign(mask=str(tmp_path / "m.png"), label="anomalous")
    for rule, width in (("gt0", 6), ("eq255", 3)):
        shown = replace(data, manifest=manifest, models=data.models[:1], mask_rule=rule)
        (outline,) = FIGURES["anomaly_maps"](shown).axes[1].collections[0].get_paths()[0].to_polygons()
        assert np.ptp(outline[:, 0]) == width
        assert patch_coverage(manifest, (1, 1), rule).item() == pytest.approx(width * (6 if width == 6 else 3) / 64)


def test_images_are_read_in_grey_or_colour(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "g.png")
    Image.fromarray(np.stack([grey, grey, grey + 1], axis=-1)).save(tmp_path / "c.png")
    np.testing.assert_array_equal(read_grey_image(tmp_path / "g.png"), grey)
    assert read_grey_image(tmp_path / "c.png").shape == (3, 4, 3)


def many(data: FigureData) -> FigureData:
    """Ten models, of which two share a family."""
    families = ["memory_bank", "memory_bank", *(f"family_{index}" for index in range(8))]
    models = [replace(data.models[0], name=f"model_{index}", family=name) for index, name in enumerate(families)]
    return replace(data, models=models)


def test_maps_of_many_models_lie_below_each_other(data: FigureData) -> None:
    figure = FIGURES["anomaly_maps"](many(data))
    pictures = figure.axes[: 12 * 4]
    names = ["Image", "Lesion outline", *(f"model_{index}" for index in range(10))]
    assert [axes.get_ylabel() for axes in pictures[::4]] == names
    assert all(axes.get_title() for axes in pictures[:4])
    assert len(figure.axes) == 12 * 4 + 10  # and a colour bar for each model
    assert figure.get_size_inches()[1] < 260 / 25.4  # a page


def test_no_two_models_of_the_frontier_look_the_same(data: FigureData) -> None:
    lines = FIGURES["frontier"](many(data)).axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(lines) == 10
    assert lines[0].get_color() == lines[1].get_color()
