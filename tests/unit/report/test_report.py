"""The report: verdicts worked out by hand, cases chosen by rule, maps that keep their values, a page that is whole."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from made_files import flip, write_csv
from PIL import Image
from synthetic_run import CONFIG, DATASET, EMBEDDING, GRID, map_of, write_run

from dinodp import store
from dinodp.configuration import Configuration
from dinodp.datasets.manifest import read_manifest, select
from dinodp.errors import InputError
from dinodp.evaluation.test_split import evaluate_scores
from dinodp.images import resize_mask
from dinodp.jobs.files import read_json
from dinodp.jobs.origin import table_origin
from dinodp.metrics import evaluate, evaluate_stream
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.options.protocol import Protocol, read_published
from dinodp.report import comparison
from dinodp.report.case_choice import choose_by_dice, choose_by_score, image_dice, lesion_mask
from dinodp.report.case_gallery import galleries, threshold_levels
from dinodp.report.comparability import unlike_published
from dinodp.report.curve_panels import axis_end, curve_panels
from dinodp.report.origin import data_rows, limits
from dinodp.report.page import number, write_report
from dinodp.report.pictures import TOP, map_to_show, quantised, runs, shown_size
from dinodp.report.protocols import protocol_table
from dinodp.report.run_files import ReportFiles

PROTOCOL = Protocol()
RESIZED = Protocol(mask_size=(448, 448))  # as in the follow-up
PUBLISHED = {  # data and weights of the published run
    "datasets": {DATASET: {"expect": {"counts": {"train": {"normal": 7500}}}, "accept": ["subject_in_two_splits"]}},
    "embeddings": {EMBEDDING: {"backbone": "facebook/dinov2-small", "revision": "ed25f3a", "resolution": 448}},
}
COMMAND = "snakemake --cores 2 --configfile config/none.yaml"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(files: ReportFiles, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, files, CONFIG, COMMAND, "0123abc")
    return path.read_text(encoding="utf-8")


def rows_of(files: ReportFiles, embedding: str = EMBEDDING, intervals: bool = True) -> dict[tuple[str, str], dict]:
    metrics = pd.read_csv(files.metrics, keep_default_na=False).assign(embedding=embedding)
    known = pd.read_csv(files.intervals) if intervals else None
    rows = comparison.result_rows(metrics, known, read_published(files.published, PROTOCOL), PROTOCOL, PUBLISHED)
    return {(row["model"], row["metric"]): row for row in rows}


def test_verdicts_follow_tolerance_and_interval(files: ReportFiles) -> None:
    rows = rows_of(files)
    verdicts = {metric: row["verdict"] for (model, metric), row in rows.items() if model == "dpmm_diag"}
    assert verdicts == {
        "pixel_auroc": "reproduced",  # 95.60 against 96.21
        "pixel_aupr_trapezoid": "within the interval",  # 41.00, 35 to 47, against 43.43
        "dice_fpr10": "differs",  # 20.00, 18 to 22, against 31.64
        "dice_fpr01": "differs",  # 51.00, 49 to 53, against 45.87
    }
    auroc = rows["dpmm_diag", "pixel_auroc"]
    assert auroc["mean"] == pytest.approx(95.6)
    assert auroc["std"] == pytest.approx(0.1 * np.sqrt(2))
    assert auroc["difference"] == pytest.approx(95.6 - 96.21)
    assert auroc["origin"] == "schulthess2025, table 1, second-hand"
    assert (auroc["low"], auroc["high"]) == pytest.approx((95, 96))
    assert rows["memory_bank", "pixel_auroc"]["origin"].startswith("schulthess2026")


def test_a_verdict_counts_how_much_fits_differ_from_three_seeds_on(files: ReportFiles) -> None:
    """Dice 51 against 45.87, subjects 49 to 53: of three fits with a spread of 1.5, t (4.30) times 1.5 * sqrt(4/3)."""
    rows = rows_of(files)
    row = rows["dpmm_diag", "dice_fpr01"] | {"low": 49.0, "high": 53.0, "mean": 51.0, "std": 1.5, "seeds": 3}
    assert comparison._holds(row, 51 - 45.87)
    assert not comparison._holds(row | {"std": 0.5}, 51 - 45.87)  # sqrt(2^2 + 2.48^2) = 3.2 < 5.13
    assert not comparison._holds(row | {"std": 5.0, "seeds": 2}, 51 - 45.87)
    assert not comparison._holds(row | {"low": None, "high": None}, 0.0)


def test_a_tolerance_is_a_share_of_the_published_value(files: ReportFiles) -> None:
    rows = rows_of(files)
    assert rows["dpmm_diag", "pixel_auroc"]["tolerance"] == pytest.approx(0.9621)
    assert rows["dpmm_diag", "dice_fpr10"]["tolerance"] == pytest.approx(0.05 * 31.64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"datasets": {"accept": ["counts"]}}, "accepted deviations of the data: counts"),
        ({"datasets": {"expect": {}}}, "images are not compared with the published counts"),
        (
            {"embeddings": {"backbone": "data/weights"}},
            "weights of data/weights (there: facebook/dinov2-small)",
        ),
        ({"embeddings": {"revision": None}}, "no pinned revision of facebook/dinov2-small"),
        ({"embeddings": {"resolution": 224}}, "resolution 224 (there: 448)"),
        ({"embeddings": {"square": True}}, "square true (there: false)"),
        ({"embeddings": {"interpolation": "bilinear"}}, "interpolation bilinear (there: bicubic)"),
        ({"embeddings": {"layers": [6]}}, "layers 6 (there: the last)"),
    ],
)
def test_a_run_on_other_data_or_weights_gets_no_verdict(files: ReportFiles, change: dict, said: str) -> None:
    config = {
        kind: {name: entry | change.get(kind, {}) for name, entry in entries.items()}
        for kind, entries in PUBLISHED.items()
    }
    metrics = pd.read_csv(files.metrics, keep_default_na=False)
    rows = comparison.result_rows(metrics, None, read_published(files.published, PROTOCOL), PROTOCOL, config)
    compared = [row for row in rows if row["published"] is not None]
    assert {row["verdict"] for row in compared} == {"other data or weights"}
    assert all(row["origin"].endswith(f"; here {said}") for row in compared)


def test_the_papers_own_run_gets_verdicts(root: Path) -> None:
    merged = yaml.safe_load((root / "config/catalog.yaml").read_text())
    run = yaml.safe_load((root / "config/paper.yaml").read_text())["run"]
    config = Configuration.of({**merged, "run": run}).plain()
    found = {name: unlike_published(config, name, Protocol.of(config["run"])) for name in run["datasets"]}
    assert found == {"brats2021": [], "liver": [], "resc": []}


def test_without_a_published_value_or_interval_nothing_is_made_up(files: ReportFiles) -> None:
    bank = rows_of(files)["memory_bank", "dice_fpr10"]
    assert (bank["published"], bank["low"], bank["std"], bank["verdict"]) == (None, None, None, "–")
    row = rows_of(files, intervals=False)["dpmm_diag", "pixel_aupr_trapezoid"]
    assert (row["low"], row["verdict"]) == (None, "differs")


def test_another_embedding_gets_no_verdict(files: ReportFiles) -> None:
    row = rows_of(files, embedding="vit_tiny")["dpmm_diag", "pixel_auroc"]
    assert (row["published"], row["difference"], row["verdict"]) == (96.21, None, "other embedding")


def test_variants_and_other_mask_rules_get_no_verdict(files: ReportFiles) -> None:
    metrics = pd.read_csv(files.metrics, keep_default_na=False)
    both = pd.concat([metrics, metrics.assign(mask_rule="eq255")])
    published = read_published(files.published, PROTOCOL)
    both["variant"] = both["model"] == "dpmm_diag"
    rows = comparison.result_rows(both, None, published, RESIZED, PUBLISHED)
    found = {(row["model"], row["mask_rule"]): row for row in rows if row["metric"] == "pixel_auroc"}
    assert found["dpmm_diag", "gt0"]["verdict"] == "variant"
    assert found["dpmm_diag", "gt0"]["difference"] == pytest.approx(95.6 - 96.21)
    assert found["memory_bank", "gt0"]["verdict"] == "reproduced"
    assert found["memory_bank", "eq255"]["verdict"] == "other mask rule"
    assert found["memory_bank", "eq255"]["difference"] is None


@pytest.mark.parametrize(
    ("protocol", "metric", "verdict"),
    [
        (PROTOCOL, "pixel_auroc", "reproduced"),
        (Protocol(smoothing_sigma=4), "pixel_auroc", "other protocol"),
        (RESIZED, "pixel_auroc", "other protocol"),
        (PROTOCOL, "dice_fpr10", "differs"),
        (Protocol(threshold_maps="pixel"), "dice_pixel_fpr10", "other protocol"),
        (Protocol(aupr="average_precision"), "pixel_average_precision", "other protocol"),
    ],
)
def test_another_protocol_gets_no_verdict(files: ReportFiles, protocol: Protocol, metric: str, verdict: str) -> None:
    metrics = pd.read_csv(files.metrics, keep_default_na=False)
    names = {"dice_fpr10": "dice_pixel_fpr10", "pixel_aupr_trapezoid": "pixel_average_precision"}
    both = pd.concat([metrics, metrics.replace({"metric": names})]).drop_duplicates()
    rows = comparison.result_rows(both, None, read_published(files.published, protocol), protocol, PUBLISHED)
    (row,) = [row for row in rows if (row["model"], row["metric"]) == ("dpmm_diag", metric)]
    assert row["verdict"] == verdict
    assert row["difference"] is not None
    assert ("; here " in row["origin"]) == (verdict == "other protocol")


def test_anomalydinos_protocol_is_compared_with_no_value(files: ReportFiles, root: Path) -> None:
    run = yaml.safe_load((root / "config/anomalydino.yaml").read_text())["run"]
    published = read_published(files.published, Protocol.of(run))
    assert published.empty
    metrics = pd.read_csv(files.metrics, keep_default_na=False)
    rows = comparison.result_rows(metrics, None, published, Protocol.of(run), PUBLISHED)
    assert {row["verdict"] for row in rows} == {"–"}
    config = {**CONFIG, "run": {**CONFIG["run"], "published_sources": []}}
    assert "This run is compared with no published value." in limits(config, rows, [])
    assert not [sentence for sentence in limits(config, rows, []) if sentence.startswith("Nothing is published")]


def test_headline_leaves_out_controls_and_other_embeddings(files: ReportFiles) -> None:
    metrics = pd.read_csv(files.metrics, keep_default_na=False)
    control = metrics[:1].assign(model="oracle", family="control", score="oracle")
    both = pd.concat([metrics, control, metrics.assign(embedding="classical")])
    rows = comparison.result_rows(both, None, read_published(files.published, PROTOCOL), PROTOCOL, PUBLISHED)
    first = comparison.headline(rows, PROTOCOL)
    assert {(row["model"], row["embedding"]) for row in first} == {("memory_bank", EMBEDDING), ("dpmm_diag", EMBEDDING)}
    other = comparison.headline(rows, Protocol(published_embedding="dinov3"))
    assert {row["embedding"] for row in other} == {EMBEDDING, "classical"}


def test_without_masks_the_headline_is_image_auroc(files: ReportFiles) -> None:
    metrics = pd.read_csv(files.metrics, keep_default_na=False)[:2].assign(metric="image_auroc")
    rows = comparison.result_rows(metrics, None, read_published(files.published, PROTOCOL), PROTOCOL, PUBLISHED)
    assert [row["metric"] for row in comparison.headline(rows, PROTOCOL)] == ["image_auroc"]


def test_protocols_stand_side_by_side(files: ReportFiles) -> None:
    metrics = pd.read_csv(files.metrics, keep_default_na=False)
    corrected = metrics[metrics["model"] == "dpmm_diag"].assign(model="ours", value=metrics["value"] + 0.01)
    renamed = {"pixel_aupr_trapezoid": "pixel_average_precision", "dice_fpr10": "dice_pixel_fpr10"}
    both = pd.concat([metrics, corrected.replace({"metric": renamed})])
    rows = comparison.result_rows(both, None, read_published(files.published, PROTOCOL), PROTOCOL, PUBLISHED)
    run = {
        **CONFIG["run"],
        "protocols": {
            "paper": {"model": "dpmm_diag"},
            "ours": {"model": "ours", "threshold_maps": "pixel", "aupr": "average_precision"},
        },
    }
    models = {**CONFIG["models"], "dpmm_diag": {"init": "paper"}, "ours": {"init": "spread"}}
    config = {**CONFIG, "run": run, "models": models}
    table = protocol_table(config, rows)
    assert table["names"] == ["paper", "ours"]
    starts = dict(table["choices"])["Means start from"]
    assert starts[0].startswith("first K")
    assert "whole training set" in starts[1]
    found = {row["name"]: row for row in table["rows"]}
    assert found["Pixel AUROC"]["published"] == 96.21
    assert found["Pixel AUPR"]["difference"] == pytest.approx(1.0)
    assert [value["metric"] for value in found["Dice, FPR 10 %"]["values"]] == ["dice_fpr10", "dice_pixel_fpr10"]
    assert found["Dice, FPR 1 %"]["values"][1] is None  # not computed at pixel thresholds here
    assert found["Dice, FPR 1 %"]["difference"] is None
    assert protocol_table(CONFIG, rows) == {}
    renamed = both.assign(embedding="classical")
    rows = comparison.result_rows(renamed, None, read_published(files.published, PROTOCOL), PROTOCOL, PUBLISHED)
    other = protocol_table({**config, "run": {**run, "embeddings": ["classical"]}}, rows)
    assert {row["published"] for row in other["rows"]} == {None}  # those are of DINOv2's embeddings


def test_the_first_score_is_the_catalogs_first(files: ReportFiles) -> None:
    """Not the cosine, where the entry names another one first."""
    metrics = pd.read_csv(files.metrics, keep_default_na=False)
    likelihood = metrics.assign(score="log_likelihood", value=metrics["value"] - 0.1)
    both = pd.concat([metrics.assign(primary=False), likelihood])
    rows = comparison.result_rows(both, None, read_published(files.published, PROTOCOL), PROTOCOL, PUBLISHED)
    assert {row["score"] for row in comparison.headline(rows, PROTOCOL)} == {"log_likelihood"}
    models = comparison.by_model(rows, "gt0")[DATASET, EMBEDDING]
    assert {row["score"] for values in models.values() for row in values.values()} == {"log_likelihood"}


def test_without_intervals_a_difference_has_no_reading(files: ReportFiles, tmp_path: Path) -> None:
    bare = {"low": np.nan, "high": np.nan}
    for name, path in (("intervals", files.intervals), ("differences", files.differences)):
        write_csv(pd.read_csv(path).assign(**bare), tmp_path / f"{name}.csv", table_origin(path).made_from)
    few = replace(files, intervals=tmp_path / "intervals.csv", differences=tmp_path / "differences.csv")
    write_report(tmp_path / "report.html", few, CONFIG, COMMAND, "unknown")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    differences = text[text.index('id="difference-table"') :]
    differences = differences[: differences.index("</table>")]
    assert differences.count("too few subjects") == 2
    assert "nan" not in differences
    assert " to " not in differences
    data = [{"dataset": "d", "subjects": 2, "anomalous_subjects": 2, "test": "1 normal + 2 anomalous"}]
    assert "d: fewer than 3 test subjects have an anomaly, so nothing has an interval." in limits(CONFIG, [], data)


@pytest.mark.parametrize(
    ("test", "metrics", "sentence"),
    [
        ("3 normal", [], "d has no anomalous test image: it has thresholds and maps, but no metric."),
        ("3 anomalous", ["pixel_auroc"], "d has no normal test image, so no metric of whole images."),
        ("1 normal + 2 anomalous", ["image_auroc"], "so no metric of pixels or regions."),
        ("3 anomalous", [], "of pixels or regions, and no normal test image, so no metric of whole images."),
        ("1 normal + 2 anomalous", ["pixel_auroc"], None),
        ("1 normal + 2 anomalous", ["pixel_auroc", "lesion_sensitivity_1"], None),
        (
            "1 normal + 2 anomalous",
            ["image_auroc", "lesion_sensitivity_1"],
            "d has boxes in the place of masks, so no metric of pixels.",
        ),
    ],
)
def test_a_class_or_masks_that_are_missing_are_named(test: str, metrics: list[str], sentence: str | None) -> None:
    data = [{"dataset": "d", "subjects": 0, "anomalous_subjects": 0, "test": test}]
    rows = [{"dataset": "d", "published": None, "metric": metric} for metric in metrics]
    said = [line for line in limits(CONFIG, rows, data) if line.startswith(("d has no", "d has boxes"))]
    assert [line for line in said if line.endswith(sentence or "")] == said
    assert len(said) == (sentence is not None)


def test_failures_and_alignment_are_on_the_page(page: str) -> None:
    strata = page[page.index("Where it fails") : page.index("Do components follow anatomy?")]
    small = strata[strata.index("small") : strata.index("large")]
    assert small.count("<b>40.0</b>") == 4  # two metrics of two models; the image AUROC is not known
    assert "0.1 to 2 % of the image" in small
    assert "35.0 to 45.0" in small
    alignment = page[page.index("Do components follow anatomy?") : page.index("All results</h2>")]
    assert alignment.index("<b>0.500</b>") < alignment.index("<b>0.250</b>")
    assert "0.100 to 0.600" in alignment


@pytest.mark.parametrize(
    ("backbone", "loose"),
    [
        ({"backbone": "facebook/some-model"}, True),
        ({"backbone": "facebook/some-model", "revision": "0" * 40}, False),
        ({"backbone": "classical"}, False),
    ],
)
def test_a_backbone_without_a_revision_is_named(files: ReportFiles, backbone: dict, loose: bool) -> None:
    config = {**CONFIG, "embeddings": {EMBEDDING: backbone}}
    said = " ".join(limits(config, [], data_rows(files)))
    assert (f"No revision of the backbone is pinned for {EMBEDDING}" in said) == loose


def cases_frame(labels: str, subjects: str) -> pd.DataFrame:
    names = {"n": "normal", "a": "anomalous"}
    return pd.DataFrame({"label": [names[label] for label in labels], "subject": list(subjects)})


def test_cases_are_best_worst_and_median_one_per_subject() -> None:
    frame = cases_frame("aaaaaaaaaaann", "AABCDEFGHIJKL")
    dice = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.3, 0.0, 0.0, 0.0, np.nan, np.nan])
    share = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0.1, 0.3, 0.2, 0, 0])
    scores = np.arange(13.0)
    groups = choose_by_dice(frame, dice, share, scores)
    assert groups == {
        "best Dice": [0, 2, 3],  # 1 is of the same subject as 0
        "median Dice": [5, 4, 6],  # the median is 0.45
        "worst Dice": [9, 10, 8],  # equal Dice: the larger lesion first
        "normal, highest score": [12, 11],
    }


def test_few_images_are_shown_once() -> None:
    groups = choose_by_dice(cases_frame("aan", "ABC"), np.array([0.5, 0.4, np.nan]), np.ones(3), np.ones(3))
    assert sorted(row for rows in groups.values() for row in rows) == [0, 1, 2]


def test_without_masks_cases_are_chosen_by_score() -> None:
    scores = np.array([5.0, 1, 4, 2, 3, 6, 0, 9])
    groups = choose_by_score(cases_frame("aaaaaaan", "ABCDEFGH"), scores)
    assert groups == {
        "anomalous, highest score": [5, 0, 2],
        "anomalous, lowest score": [6, 1, 3],
        "normal, highest score": [7],
    }


def test_dice_of_an_image_is_numpys(files: ReportFiles) -> None:
    frame = select(read_manifest(files.manifests[DATASET]), "test")
    maps = store.read_maps(files.models[0].test)["cosine"]
    dice, share = image_dice(frame, maps, 0.1, PROTOCOL)
    row = int(np.flatnonzero(frame["label"] == "anomalous")[3])
    mask = lesion_mask(frame.iloc[row], "gt0")
    above = map_of(files, 0, row, mask.shape) > 0.1
    assert dice[row] == pytest.approx(2 * (mask & above).sum() / (mask.sum() + above.sum()))
    assert share[row] == pytest.approx(mask.mean())
    assert np.isnan(dice[(frame["label"] == "normal").to_numpy()]).all()


def test_masks_of_another_size_are_what_is_evaluated(files: ReportFiles, tmp_path: Path) -> None:
    """The Dice that chooses cases, the metrics and the page: all at the size that the run resizes masks to."""
    frame = select(read_manifest(files.manifests[DATASET]), "test")
    maps = store.read_maps(files.models[0].test)["cosine"]
    protocol = Protocol(mask_size=(30, 70))
    dice, _ = image_dice(frame, maps, 0.1, protocol)
    row = int(np.flatnonzero(frame["label"] == "anomalous")[3])
    with Image.open(frame["mask"].iloc[row]) as image:
        mask = np.asarray(image.resize((70, 30), Image.Resampling.NEAREST)) > 0
    above = map_of(files, 0, row, (30, 70)) > 0.1
    assert dice[row] == pytest.approx(2 * (mask & above).sum() / (mask.sum() + above.sum()))
    evaluate_scores(
        test_scores=files.models[0].test, valid_scores=files.models[0].valid,
        manifest=read_manifest(files.manifests[DATASET]), labels={},
        protocol=Protocol(resamples=0, mask_size=(30, 70)),
        metrics_path=tmp_path / "m.json", curves_path=tmp_path / "c.h5",
    )  # fmt: skip
    values = read_json(tmp_path / "m.json")["metrics"]["cosine"]["gt0"]
    masks = [resize_mask(lesion_mask(case, "gt0").astype(np.uint8), (30, 70)) for _, case in frame.iterrows()]
    valid = store.read_maps(files.models[0].valid)["cosine"]
    for name, value in evaluate(maps, masks, valid).items():
        assert values[name] == pytest.approx(value), name
    config = {**CONFIG, "run": {**CONFIG["run"], "mask_size": [30, 70]}}
    write_report(tmp_path / "report.html", files, config, COMMAND, "unknown")
    assert "masks and maps of 70 × 30 pixels" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("highest", "end"), [(0.034, 0.05), (0.05, 0.05), (0.6, 1.0), (1.0, 1.0), (0.0003, 0.0005)])
def test_the_axis_ends_where_the_curves_do(highest: float, end: float) -> None:
    assert axis_end(highest) == pytest.approx(end)


def test_curves_are_drawn_on_an_axis_of_their_height(files: ReportFiles) -> None:
    recall = np.linspace(0, 1, 200, dtype=np.float32)
    curves = {"fpr": recall, "tpr": recall, "recall": recall, "precision": np.float32(0.04) * (1 - recall)}
    curves["precision"][0] = 1  # the first pixels say nothing
    roc, pr = curve_panels([{"name": "m", "curves": curves, "prevalence": 0.001}])
    assert (roc["top"], pr["top"]) == (1.0, 0.05)
    heights = [float(pair.split(",")[1]) for pair in pr["lines"][0]["points"].split()]
    assert heights[0] == 0  # cut
    assert heights[1] == pytest.approx(200 * (1 - 0.04 / 0.05), abs=5)
    assert heights[-1] == 200


@pytest.mark.parametrize("first", [False, True])
def test_runs_give_the_mask_back(first: bool) -> None:
    mask = np.random.default_rng(0).random((7, 9)) < 0.4
    mask[0, 0] = first
    values = np.concatenate([np.full(n, bool(i % 2)) for i, n in enumerate(runs(mask))])
    assert (values.reshape(mask.shape) == mask).all()


def test_runs_of_an_empty_mask() -> None:
    assert runs(np.zeros((3, 4), dtype=bool)) == [12]
    assert runs(np.ones((3, 4), dtype=bool)) == [0, 12]


def test_quantised_maps_keep_16_bits() -> None:
    values = np.random.default_rng(0).normal(-400, 90, GRID).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    packed = quantised(values, low, high)
    levels = np.frombuffer(base64.b64decode(packed["values"]), dtype="<u2").reshape(packed["rows"], packed["columns"])
    assert np.abs(low + levels / TOP * (high - low) - values).max() <= 0.51 * (high - low) / TOP


def test_a_constant_map_is_quantised() -> None:
    assert set(base64.b64decode(quantised(np.full(GRID, 3, np.float32), 3.0, 3.0)["values"])) == {0}


def test_smoothed_maps_are_shown_smoothed() -> None:
    peak = np.zeros(GRID, np.float32)
    peak[5, 4] = 1
    assert map_to_show(peak, (100, 80), 0) is peak
    smooth = map_to_show(peak, (100, 80), 10)
    assert smooth.shape == (20, 16)
    assert 0 < smooth.max() < 0.5


def test_sizes_shown_keep_the_aspect_and_never_grow() -> None:
    assert shown_size(100, 80) == (100, 80)
    assert shown_size(512, 1024) == (128, 256)
    mask = np.zeros((512, 1024), dtype=np.uint8)
    mask[100:300, 200:600] = 1
    assert resize_mask(mask, (128, 256)).mean() == pytest.approx(mask.mean(), rel=0.05)


def test_levels_of_the_slider_agree_with_the_metrics(files: ReportFiles) -> None:
    model = files.models[1]
    values = read_json(model.metrics)["metrics"]["cosine"]["gt0"]
    test, valid = (store.read_maps(path)["cosine"] for path in (model.test, model.valid))
    with store.reading(model.curves) as file:
        curves = {name: item[()] for name, item in file["cosine/gt0"].items()}
    levels = threshold_levels(test, valid, [values[name] for name in PROTOCOL.thresholds], curves)
    thresholds = [level["threshold"] for level in levels]
    assert thresholds == sorted(thresholds)
    for name, rate in (("fpr10", 0.1), ("fpr05", 0.05), ("fpr01", 0.01)):
        level = levels[thresholds.index(values[f"threshold_{name}"])]
        assert level["dice"] == pytest.approx(values[f"dice_{name}"], abs=0.003)
        assert level["fpr_valid"] == pytest.approx(rate, abs=0.005)
        assert level["flagged"] == pytest.approx((test > level["threshold"]).mean(), abs=1e-4)
    assert (levels[0]["flagged"], levels[-1]["flagged"]) == (pytest.approx(0.5, abs=0.01), 0.0)


def test_every_level_of_the_slider_says_what_counting_says() -> None:
    """At both ends as well: most patches share the lowest score (black background), and nothing exceeds the highest."""
    rng = np.random.default_rng(0)
    maps = rng.gamma(2, 1, (12, 8, 8)).astype(np.float32)
    maps[:, :, :5] = 0
    masks = np.zeros((12, 144, 144), dtype=np.uint8)
    masks[:6, 60:90, 108:132] = 255
    maps[:6, 3:5, 6:7] += 3
    maps[8, 0, 7] = 40  # the highest scores are false alarms
    levels = threshold_levels(maps, maps, [0.0], evaluate_stream(maps, masks, maps).curves)
    pixels = np.stack([anomaly_map(values, (144, 144)) for values in maps])
    assert (levels[0]["threshold"], levels[-1]["threshold"]) == (0, maps.max())
    for level in levels:
        above = pixels > level["threshold"]
        hits, positives = (above & (masks > 0)).sum(), (masks > 0).sum()
        assert level["fpr"] == pytest.approx((above & (masks == 0)).sum() / (masks == 0).sum(), rel=1e-2, abs=1e-5)
        assert level["recall"] == pytest.approx(hits / positives, abs=2e-3)
        assert level["dice"] == pytest.approx(2 * hits / (above.sum() + positives), abs=2e-3)
        if above.any():
            assert level["precision"] == pytest.approx(hits / above.sum(), abs=max(5e-3, 3 / above.sum()))
    assert levels[-1]["precision"] is None
    assert (levels[-1]["recall"], levels[-1]["fpr"], levels[-1]["dice"]) == (0, 0, 0)


def test_every_case_has_a_map_of_every_model(files: ReportFiles) -> None:
    (section,) = galleries(files, PROTOCOL)
    assert [model["name"] for model in section["models"]] == ["memory_bank", "dpmm_diag"]
    assert all(len(model["maps"]) == len(section["cases"]) for model in section["models"])
    chosen = [group for model in section["models"] for group in model["groups"]]
    assert {"best Dice", "median Dice", "worst Dice", "normal, highest score"} <= set(chosen)


def test_page_needs_no_other_file(page: str) -> None:
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]*)""", page)
    assert addresses
    assert {address for address in addresses if not address.startswith(("data:", "#"))} == set()
    assert "@import" not in page


def test_page_says_what_it_is_made_of(page: str, files: ReportFiles) -> None:
    for text in ("Synthetic &lt;run&gt;", "Noise &amp; discs", "A score is no diagnosis", COMMAND, "0123abc"):
        assert text in page
    assert "brats2021 has 8 test subjects, which is few" in page
    assert "accepted deviations: image_size" in page
    assert "cpu, 1 threads" in page
    assert "published_embedding: dinov2_vits14" in page
    assert "One seed" not in page


def test_same_input_same_bytes(files: ReportFiles, page: str, tmp_path: Path) -> None:
    write_report(tmp_path / "again.html", files, CONFIG, COMMAND, "0123abc")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_a_deleted_or_changed_table_of_checksums_is_named(files: ReportFiles, tmp_path: Path) -> None:
    (made,) = files.checksums.values()
    damages = ((lambda path: path.unlink(), "There is no file"), (lambda path: flip(path, 3), "is not as it was"))
    for damage, sentence in damages:
        write_csv(pd.read_csv(made), tmp_path / "checksums.csv")
        damage(tmp_path / "checksums.csv")
        damaged = replace(files, checksums=dict.fromkeys(files.checksums, tmp_path / "checksums.csv"))
        with pytest.raises(InputError, match=sentence):
            write_report(tmp_path / "report.html", damaged, CONFIG, COMMAND, "unknown")


def test_page_without_intervals(files: ReportFiles, tmp_path: Path) -> None:
    bare = replace(files, intervals=None, differences=None, figures=[])
    config = {**CONFIG, "run": {**CONFIG["run"], "seeds": [0], "published_embedding": "dinov3"}}
    write_report(tmp_path / "bare.html", bare, config, COMMAND, "unknown")
    text = (tmp_path / "bare.html").read_text(encoding="utf-8")
    assert 'id="differences"' not in text
    assert "nothing here reproduces or contradicts them" in text
    assert "One seed: how much the fits vary is not known." in text
    assert "git commit unknown" in text


def test_without_published_values_there_is_no_column_of_dashes(files: ReportFiles, page: str, tmp_path: Path) -> None:
    config = {**CONFIG, "run": {**CONFIG["run"], "published_sources": []}}
    write_report(tmp_path / "report.html", files, config, COMMAND, "unknown")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for content, compared in ((page, True), (text, False)):
        table = content[content.index('id="headline-table"') :]
        table = table[: table.index("</table>")]
        headings = re.findall(r"<button type=\"button\">([^<]+)</button>", table)
        assert ("Published" in headings, "Verdict" in headings) == (compared, compared)
        cells = [row.count("<td") for row in table.split("<tbody>")[1].split("<tr>")[1:]]
        assert set(cells) == {len(headings) + compared}  # and the axis
    assert "No value of this run has a published counterpart." in text


def test_page_without_masks(tmp_path: Path) -> None:
    files = write_run(tmp_path, masks=False)
    write_report(tmp_path / "report.html", files, CONFIG, COMMAND, "unknown")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "This data set has no masks" in text
    assert "lesion outline" not in text
    assert 'class="panels"' not in text


def test_a_missing_file_leaves_no_page(files: ReportFiles, tmp_path: Path) -> None:
    broken = replace(files, models=[replace(files.models[0], valid=tmp_path / "valid.h5")])
    with pytest.raises(InputError, match="There is no file"):
        write_report(tmp_path / "report.html", broken, CONFIG, COMMAND, "unknown")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [(None, 2, False, "–"), (1.005, 1, False, "1.0"), (-0.5, 2, True, "−0.50"), (2.0, 2, True, "+2.00")],
)
def test_numbers(value: float | None, digits: int, signed: bool, text: str) -> None:
    assert number(value, digits, signed) == text


def test_the_headline_has_one_row_per_data_set_and_model(files: ReportFiles, page: str) -> None:
    table = page[page.index('id="overview-table"') :]
    table = table[: table.index("</table>")]
    metrics = pd.read_csv(files.metrics, keep_default_na=False)
    shown = metrics[(metrics["family"] != "control") & metrics["primary"]]
    lines = table.split("<tbody>")[1].split("<tr>")[1:]
    assert len(lines) == len(shown[["dataset", "embedding", "model"]].drop_duplicates())
    assert len(lines) < page[page.index('id="headline-table"') :].split("</table>")[0].count("<tr>") - 1
    for _, row in shown[shown["metric"] == "pixel_auroc"].groupby("model").first().iterrows():
        assert any(f"<b>{row['value'] * 100:.2f}</b>" in line for line in lines) or len(set(shown["seed"])) > 1
    assert "<details><summary>Each of these" in page
