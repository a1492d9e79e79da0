"""Metrics: against reference files, against scikit-learn on exact cases, and by hand."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from dinodp.errors import InputError
from dinodp.images import image_score
from dinodp.metrics import evaluate, evaluate_stream
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.metrics.definitions import DEFINED, METRICS
from dinodp.metrics.histograms import ScoreBins, ScoreHistograms
from dinodp.metrics.pixels import PixelCounter
from dinodp.metrics.thresholds import ThresholdCounts, calibrated_thresholds, full_resolution_thresholds
from dinodp.options.protocol import Protocol


def histograms(scores, anomalous, bins=None):
    """Histograms of one map [H, W]."""
    scores = np.asarray(scores, dtype=np.float32)
    result = ScoreHistograms.empty(bins or ScoreBins.of(scores))
    result.update(scores, np.asarray(anomalous, dtype=bool))
    return result


def value(name, found):
    """A metric of pixels, by the name of its file."""
    return float(DEFINED[name].compute(found.cumulative()))


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("rule", ["gt0", "eq255"])
def test_reference_values(root, rule):
    folder = root / "tests/data/metrics"
    data, expected = np.load(folder / "metrics_a.npz"), json.loads((folder / "metrics_a.json").read_text())[rule]
    found = evaluate(data["patch_maps"], data["masks"], data["validation_normal_patch_maps"], rule)
    expected["image_auroc"] = expected["image_auroc_mean_top1pct"]
    names = set(found) & set(expected)
    assert len(names) == 13
    assert {name: found[name] for name in names} == pytest.approx({name: expected[name] for name in names}, abs=1e-4)


SCORES = {
    "normal": lambda: rng().normal(size=(40, 50)),
    "ties": lambda: rng().integers(0, 7, size=(40, 50)),
    "heavy tail": lambda: rng().standard_cauchy(size=(40, 50)),
    "negative, far from zero": lambda: -1e4 + rng().normal(size=(40, 50)),
    "tiny": lambda: 1e-6 * rng().random(size=(40, 50)),
    "constant": lambda: np.full((40, 50), 3.5),
}


@pytest.mark.parametrize("kind", SCORES)
def test_ranking_metrics_are_scikit_learns(kind):
    scores = SCORES[kind]().astype(np.float32)
    anomalous = rng(1).random(scores.shape) < 1 / (1 + np.exp(-scores.astype(np.float64) + np.median(scores) + 2))
    found = histograms(scores, anomalous)
    y, s = anomalous.ravel(), scores.ravel()
    precision, recall, _ = sk.precision_recall_curve(y, s)
    assert value("pixel_auroc", found) == pytest.approx(sk.roc_auc_score(y, s), abs=1e-4)
    assert value("pixel_average_precision", found) == pytest.approx(sk.average_precision_score(y, s), abs=1e-4)
    assert value("pixel_aupr_trapezoid", found) == pytest.approx(sk.auc(recall, precision), abs=1e-4)
    dice = [2 * (y & (s >= t)).sum() / (y.sum() + (s >= t).sum()) for t in np.unique(s)]
    assert value("max_dice", found) == pytest.approx(max(dice), abs=1e-4)


def test_aupro_by_hand():
    anomalous = np.zeros((4, 5), dtype=bool)
    anomalous[0, 0] = anomalous[1, 1] = True  # one region: they touch at a corner
    anomalous[3, 3:] = True  # another
    scores = np.zeros((4, 5))
    scores[0, 0], scores[1, 1], scores[3, 3:] = 9, 8, 7
    scores[0, 4] = 7.5  # one of 16 normal pixels
    found = histograms(scores, anomalous)
    assert found.n_regions == 2
    # coverage: 1/4, 1/2 (fpr 0), 1/2 at fpr 1/16, then 1 at fpr 1/16, and 1 up to 0.3
    assert value("aupro_30", found) == pytest.approx((0.5 / 16 + 1.0 * (0.3 - 1 / 16)) / 0.3)


def test_aupro_interpolates_at_its_limit():
    anomalous = np.array([[True, False]])
    found = histograms([[0.0, 1.0]], anomalous)
    assert value("aupro_30", found) == pytest.approx(0.0)
    tie = histograms([[1.0, 1.0]], anomalous)
    assert value("aupro_30", tie) == pytest.approx(0.15)  # the diagonal up to 0.3, over 0.3


def test_thresholds_are_quantiles_and_strict():
    maps = np.arange(100, dtype=np.float32).reshape(1, 10, 10)
    thresholds = calibrated_thresholds(maps)
    assert thresholds == pytest.approx({"threshold_fpr10": 89.1, "threshold_fpr05": 94.05, "threshold_fpr01": 98.01})
    above = ThresholdCounts({"threshold_fpr10": 5.0}, 1)
    above.update(0, np.array([[5.0, 6.0, 7.0]], dtype=np.float32), np.array([[True, True, False]]))
    assert DEFINED["dice"].compute(above.weighted(np.ones(1))) == pytest.approx([2 * 1 / (2 + 2)])  # 5 is not above 5


def test_parts_add_up_to_the_whole():
    scores, anomalous = rng().normal(size=(3, 8, 8)).astype(np.float32), rng(1).random((3, 8, 8)) < 0.2
    bins = ScoreBins.of(scores)
    whole = ScoreHistograms.empty(bins)
    for image, mask in zip(scores, anomalous, strict=True):
        whole.update(image, mask)
    first = histograms(scores[0], anomalous[0], bins)
    rest = histograms(scores[1], anomalous[1], bins) + histograms(scores[2], anomalous[2], bins)
    total = first + rest
    for name in ("normal", "anomalous", "region_weight"):
        np.testing.assert_allclose(getattr(total, name), getattr(whole, name))
    assert total.n_regions == whole.n_regions
    with pytest.raises(InputError, match="different bins"):
        first + histograms(scores[1] + 1, anomalous[1])


def case(n=6, seed=0):
    generator = rng(seed)
    masks = np.zeros((n, 24, 32), dtype=np.uint8)
    masks[: n // 2, 4:12, 8:20] = 255
    maps = generator.random((n, 6, 8)).astype(np.float32)
    return maps, masks, generator.random((4, 6, 8)).astype(np.float32)


def test_masks_may_come_one_at_a_time():
    maps, masks, validation = case()
    assert evaluate(maps, (mask for mask in masks), validation) == evaluate(maps, masks, validation)


def test_controls():
    maps, masks, validation = case(40)
    oracle = np.stack([mask.reshape(6, 4, 8, 4).mean(axis=(1, 3)) / 255 for mask in masks]).astype(np.float32)
    assert evaluate(oracle, masks, 0 * validation)["pixel_auroc"] > 0.99
    assert evaluate(oracle, masks, 0 * validation)["image_auroc"] == 1
    assert evaluate(maps, masks, validation)["pixel_auroc"] == pytest.approx(0.5, abs=0.05)
    assert evaluate(1 - oracle, masks, validation)["pixel_auroc"] < 0.01


def test_image_auroc_is_scikit_learns():
    maps, _, validation = case(30)
    maps[3:9] = maps[3]  # ties
    labels = rng(2).random(30) < 0.4
    found = evaluate(maps, None, validation, image_labels=labels)["image_auroc"]
    assert found == pytest.approx(sk.roc_auc_score(labels, image_score(maps)), abs=1e-12)


def test_only_what_is_defined_is_there():
    maps, masks, validation = case()
    without_masks = evaluate(maps, None, validation, image_labels=[True, True, True, False, False, False])
    assert set(without_masks) == {"threshold_fpr10", "threshold_fpr05", "threshold_fpr01", "image_auroc"}
    nothing = evaluate_stream(maps, 0 * masks, validation)
    assert set(nothing.values) == {"threshold_fpr10", "threshold_fpr05", "threshold_fpr01", "prevalence"}
    assert nothing.curves == {}


def test_curves_end_in_the_corners():
    maps, masks, validation = case()
    curves = evaluate_stream(maps, masks, validation).curves
    assert (curves["fpr"][0], curves["tpr"][0], curves["fpr"][-1], curves["tpr"][-1]) == (0, 0, 1, 1)
    assert (np.diff(curves["fpr"]) >= 0).all()
    assert curves["recall"][-1] == 1
    assert {len(values) for values in curves.values()} == {len(curves["fpr"])}
    assert (np.diff(curves["threshold"]) < 0).all()
    area = np.trapezoid(curves["tpr"], curves["fpr"])
    assert area == pytest.approx(evaluate(maps, masks, validation)["pixel_auroc"], abs=1e-3)


def test_every_point_of_the_curves_counts_the_pixels_above_its_threshold():
    generator = np.random.default_rng(3)
    maps = generator.integers(0, 5, (4, 16, 16)).astype(np.float32)  # as many pixels to a score as can be
    masks = [(generator.random((16, 16)) < 0.3).astype(np.uint8) * 255 for _ in maps]
    curves = evaluate_stream(maps, masks, maps[:1]).curves
    anomalous = np.stack(masks) > 0
    for index, threshold in enumerate(curves["threshold"][:-1]):
        above = maps > threshold + 1e-3  # far more than 1.25 bins, far less than the distance of two scores
        assert curves["tpr"][index] == pytest.approx(above[anomalous].mean(), abs=1e-6)
        assert curves["fpr"][index] == pytest.approx(above[~anomalous].mean(), abs=1e-6)
    assert (curves["tpr"][-1], curves["fpr"][-1]) == (1, 1)
    assert len(curves["threshold"]) == 6


def test_image_score_is_the_mean_of_the_highest_patches():
    maps = np.arange(400, dtype=np.float32).reshape(1, 20, 20)
    assert image_score(maps)[0] == pytest.approx((399 + 398 + 397 + 396) / 4)
    assert image_score(maps[:, :3, :3])[0] == 42.0  # 1 % of 9 patches: at least one


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m, k, v: (m[0], k, v), r"Patch maps have shape \(6, 8\)"),
        (lambda m, k, v: (m, k[:-1], v), "6 patch maps, but fewer masks"),
        (lambda m, k, v: (m[:-1], k, v), "5 patch maps, but more masks"),
        (lambda m, k, v: (np.where(m > 0.9, np.nan, m), k, v), "Patch scores must be finite"),
        (lambda m, k, v: (m, k, v[:0]), "at least one normal validation image"),
        (lambda m, k, v: (m, k, np.inf * v), "Thresholds need finite patch scores"),
    ],
)
def test_bad_input_is_said(change, sentence):
    with pytest.raises(InputError, match=sentence):
        evaluate(*change(*case()))


def test_unknown_mask_rule_and_wrong_label_count():
    maps, masks, validation = case()
    with pytest.raises(InputError, match="Unknown mask rule 'gt1': choose one of eq255, gt0"):
        evaluate(maps, masks, validation, "gt1")
    with pytest.raises(InputError, match="6 patch maps, but 2 image labels"):
        evaluate(maps, None, validation, image_labels=[True, False])


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_full_resolution_thresholds_are_quantiles_of_the_pixels(sigma):
    maps = np.random.default_rng(3).gamma(2, 1, (4, 6, 6)).astype(np.float32)
    sizes = [(30, 24), (30, 24), (12, 12), (60, 48)]
    found = full_resolution_thresholds(maps, sizes, sigma)
    pixels = np.concatenate([anomaly_map(*pair, sigma).ravel() for pair in zip(maps, sizes, strict=True)])
    for name, rate in (("10", 0.1), ("05", 0.05), ("01", 0.01)):
        assert found[f"threshold_pixel_fpr{name}"] == pytest.approx(np.quantile(pixels, 1 - rate), rel=1e-3)
        assert (pixels > found[f"threshold_pixel_fpr{name}"]).mean() == pytest.approx(rate, abs=1e-3)
    with pytest.raises(InputError, match="4 validation maps, but 3 sizes"):
        full_resolution_thresholds(maps, sizes[:3])


def test_dice_at_full_resolution_thresholds_stands_beside_the_other():
    generator = np.random.default_rng(4)
    maps = generator.gamma(2, 1, (3, 6, 6)).astype(np.float32)
    masks = np.zeros((3, 24, 24), dtype=np.uint8)
    masks[0, 4:12, 4:12] = 255
    validation = generator.gamma(2, 1, (5, 6, 6)).astype(np.float32)
    values = evaluate_stream(maps, masks, validation, validation_sizes=[(24, 24)] * 5).values
    pixels = np.stack([anomaly_map(item, (24, 24)) for item in maps])
    for name in ("fpr05", "pixel_fpr05"):
        above = pixels > values[f"threshold_{name}"]
        expected = 2 * (above & (masks > 0)).sum() / (above.sum() + (masks > 0).sum())
        assert values[f"dice_{name}"] == pytest.approx(expected)
    assert values["threshold_pixel_fpr05"] < values["threshold_fpr05"]  # upsampling averages, so maps are smoother
    assert "dice_pixel_fpr05" not in evaluate(maps, masks, validation)


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, [8, 17]), (0.25, [7.5, 16.5]), (1.0, [4, 13])])
def test_image_score_is_the_mean_of_a_share_of_the_highest_patches(fraction, expected):
    maps = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    assert image_score(maps, fraction).tolist() == expected


def test_smoothing_makes_two_high_neighbours_beat_a_higher_single_patch():
    maps = np.zeros((2, 7, 7), dtype=np.float32)
    maps[0, 3, 3] = 3
    maps[1, 3, 3:5] = 2.5
    assert image_score(maps, 0.0).tolist() == [3, 2.5]
    kernel = np.exp(-0.5 * np.arange(-3, 4) ** 2 / 0.7**2)
    kernel /= kernel.sum()
    centre, beside = kernel[3] ** 2, kernel[3] * kernel[2]
    np.testing.assert_allclose(image_score(maps, 0.0, 0.7), [3 * centre, 2.5 * (centre + beside)], rtol=1e-6)


def test_image_auroc_is_of_the_smoothed_image_scores():
    maps = np.zeros((2, 7, 7), dtype=np.float32)
    maps[0, 3, 3], maps[1, 3, 3:5] = 3, 2.5
    for sigma, auroc in ((0.0, 0.0), (0.7, 1.0)):
        protocol = Protocol(image_score_fraction=0, image_score_sigma=sigma)
        found = evaluate_stream(maps, None, maps, protocol, image_labels=[False, True])
        assert found.values["image_auroc"] == auroc


def test_a_resample_of_every_subject_once_is_close_to_the_value_of_every_metric():
    """One definition each: what it gives of counts [threshold] and of counts [resample, threshold]."""
    scores, anomalous = rng().normal(size=(6, 20, 30)).astype(np.float32), rng(1).random((6, 20, 30)) < 0.2
    scores += anomalous
    counter = PixelCounter(scores, {"threshold_fpr05": 1.0}, n_subjects=3)
    for index, (image, mask) in enumerate(zip(scores, anomalous, strict=True)):
        counter.add(image, mask, index // 2)
    values, replicates = counter.values(), counter.replicates(np.ones((2, 3)))
    assert list(values) == list(replicates)
    assert {name: found.shape for name, found in replicates.items()} == dict.fromkeys(values, (2,))
    assert {name: found[1] for name, found in replicates.items()} == pytest.approx(values, abs=2e-3)
    assert set(values) | {"image_auroc"} <= set(METRICS)


def test_pixels_that_do_not_count_are_as_if_they_were_not_there():
    scores, anomalous = rng().normal(size=(20, 30)).astype(np.float32), rng(1).random((20, 30)) < 0.2
    counted = rng(2).random(scores.shape) < 0.6
    kept = counted | anomalous  # an anomalous pixel always counts
    some, alone = (PixelCounter(scores, {"threshold_fpr05": 1.0}, n_subjects=1) for _ in range(2))
    some.add(scores, anomalous, counted=counted)
    alone.add(scores[kept][None], anomalous[kept][None])
    names = set(some.values()) - {"aupro_30"}  # regions need their neighbours
    once = np.ones((1, 1))
    for found, expected in ((some.values(), alone.values()), (some.replicates(once), alone.replicates(once))):
        assert {name: float(np.ravel(found[name])[0]) for name in names} == pytest.approx(
            {name: float(np.ravel(expected[name])[0]) for name in names}, abs=1e-12
        )
    assert some.histograms.prevalence == pytest.approx(anomalous.sum() / kept.sum())


def test_without_subjects_there_is_nothing_to_resample():
    counter = PixelCounter(np.arange(4, dtype=np.float32), {})
    counter.add(np.arange(4, dtype=np.float32)[None], np.array([[False, False, True, True]]))
    assert counter.replicates(np.ones((5, 1))) == {}


def test_the_order_and_the_words_of_the_metrics():
    assert [*METRICS][:4] == ["image_auroc", "pixel_auroc", "pixel_average_precision", "pixel_aupr_trapezoid"]
    assert METRICS["dice_fpr05"].heading == "Dice, FPR 5 %"
    assert METRICS["dice_pixel_fpr01"].heading == "Dice at pixel threshold, FPR 1 %"
