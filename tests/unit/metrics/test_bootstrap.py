"""Intervals over subjects: against metrics recomputed from the pixels of each resample, and by their properties."""

import numpy as np
import pandas as pd
import pytest
from made_files import write_scores
from PIL import Image
from scipy import stats
from scipy.special import logit
from sklearn import metrics as sk

from dinodp import store
from dinodp.datasets.manifest import image_row, make_manifest
from dinodp.errors import InputError
from dinodp.evaluation.intervals import anomalous_subjects, collect_intervals, interval
from dinodp.evaluation.test_split import evaluate_scores
from dinodp.jobs.origin import write_result
from dinodp.metrics import Bootstrap, evaluate, evaluate_stream
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.metrics.bootstrap import resampling_weights
from dinodp.options.protocol import Protocol

N_SUBJECTS, PER_SUBJECT = 8, 3
SUBJECTS = [f"s{index // PER_SUBJECT}" for index in range(N_SUBJECTS * PER_SUBJECT)]


@pytest.fixture(scope="module")
def case():
    """Patch maps whose subjects differ in how well lesions show; half of the subjects have lesions."""
    generator = np.random.default_rng(0)
    maps = generator.gamma(2, 1, (len(SUBJECTS), 8, 8)).astype(np.float32)
    masks = np.zeros((len(SUBJECTS), 24, 24), dtype=np.uint8)
    for image in range(len(SUBJECTS) // 2):
        row, column = generator.integers(0, 6, 2)
        masks[image, 3 * row : 3 * row + 6, 3 * column : 3 * column + 6] = 255
        maps[image, row : row + 2, column : column + 2] += 1 + image // PER_SUBJECT
    validation = generator.gamma(2, 1, (4, 8, 8)).astype(np.float32)
    labels = np.arange(len(SUBJECTS)) < len(SUBJECTS) // 2
    return maps, masks, validation, Bootstrap.of(SUBJECTS, labels, 40)


def test_replicates_are_the_metrics_of_the_resampled_subjects(case):
    maps, masks, validation, bootstrap = case
    found = evaluate_stream(maps, masks, validation, bootstrap=bootstrap).replicates
    thresholds = evaluate(maps, masks, validation)
    for number in range(0, 40, 8):
        chosen = np.repeat(np.arange(len(SUBJECTS)), bootstrap.weights[number].astype(int)[bootstrap.subjects])
        slow = evaluate(maps[chosen], masks[chosen], validation)
        for name, values in found.items():
            # Repeated pixels tie, which the bins cannot see: it shows in precision where pixels are as few as here.
            tolerance = 5e-3 if name in ("pixel_average_precision", "pixel_aupr_trapezoid") else 1e-3
            assert values[number] == pytest.approx(slow[name], abs=tolerance), name
        assert found["dice_fpr05"][number] == pytest.approx(slow["dice_fpr05"], abs=1e-9)
        assert found["image_auroc"][number] == pytest.approx(slow["image_auroc"], abs=1e-9)
    assert set(found) == {name for name in thresholds if not name.startswith(("threshold", "prevalence"))}


def test_all_subjects_once_give_the_metric_itself(case):
    maps, masks, validation, bootstrap = case
    once = Bootstrap(bootstrap.subjects, np.ones((1, N_SUBJECTS)))
    result = evaluate_stream(maps, masks, validation, bootstrap=once)
    for name, replicates in result.replicates.items():
        assert replicates[0] == pytest.approx(result.values[name], abs=1e-3)


def test_image_auroc_with_ties_is_scikit_learns():
    generator = np.random.default_rng(1)
    maps = np.repeat(generator.integers(0, 4, 12), 4).reshape(12, 2, 2).astype(np.float32)
    labels = np.arange(12) % 2 == 0
    bootstrap = Bootstrap.of([str(index) for index in range(12)], labels, 20)
    found = evaluate_stream(maps, None, maps, image_labels=labels, bootstrap=bootstrap).replicates["image_auroc"]
    scores = maps[:, 0, 0]
    order = np.unique([str(index) for index in range(12)], return_inverse=True)[1]
    expected = [sk.roc_auc_score(labels, scores, sample_weight=weights[order]) for weights in bootstrap.weights]
    np.testing.assert_allclose(found, expected)


def test_weights_keep_the_strata_and_the_seed():
    labels = np.array([True, False, False, True, False])
    weights = resampling_weights(labels, 200)
    assert (weights[:, labels].sum(axis=1) == 2).all()
    assert (weights[:, ~labels].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(weights, resampling_weights(labels, 200))
    assert not np.array_equal(weights, resampling_weights(labels, 200, seed=1))
    assert weights.std(axis=0).min() > 0
    with pytest.raises(InputError, match="at least one test subject"):
        resampling_weights([], 10)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """AUROC of image scores from two normal distributions, many small studies."""
    generator = np.random.default_rng(2)
    labels = np.repeat([True, False], 30)
    truth, hits = 0.7602, 0  # of N(1, 1) against N(0, 1): Phi(1 / sqrt 2)
    for _ in range(120):
        maps = (generator.normal(size=60) + labels).astype(np.float32)[:, None, None]
        bootstrap = Bootstrap.of([str(index) for index in range(60)], labels, 200)
        order = np.unique([str(index) for index in range(60)], return_inverse=True)[1]
        assert (order == bootstrap.subjects).all()
        result = evaluate_stream(maps, None, maps, image_labels=labels, bootstrap=bootstrap)
        low, high = np.percentile(result.replicates["image_auroc"], [2.5, 97.5])
        hits += low <= truth <= high
    assert 0.88 <= hits / 120 <= 1.0


def write_job(folder, model, seed, value, replicates, n_subjects=20):
    metrics, curves = folder / f"{model}-{seed}.json", folder / f"{model}-{seed}.h5"
    values = {"cosine": ({"pixel_auroc": value}, {"pixel_auroc": replicates})}
    return write_files(metrics, curves, model, seed, values, n_subjects)


def write_files(metrics, curves, model, seed, values, n_subjects):
    """Metrics and curves of one job; ``values``: of each score {metric: value} and {metric: replicates}."""
    content = {"dataset": "d", "embedding": "e", "model": model, "seed": seed, "options": {"scores": list(values)}}
    content["metrics"] = {score: {"gt0": found} for score, (found, _) in values.items()}
    write_result(metrics, content, "dinodp.evaluation.test_split", {"manifest": "0"})
    with store.writing(curves, "curves", {"anomalous_subjects": n_subjects}, {"manifest": "0"}) as file:
        for score, (_, replicates) in values.items():
            for metric, array in replicates.items():
                file.create_dataset(f"replicates/{score}/gt0/{metric}", data=np.asarray(array, dtype=float))
    return metrics, curves


def test_differences_are_paired(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 500)
    jobs = [
        write_job(tmp_path, "bank", 0, 0.8, 0.8 + noise),
        write_job(tmp_path, "dpmm", 0, 0.7, 0.7 + noise),
        write_job(tmp_path, "dpmm", 1, 0.9, 0.9 + noise),
    ]
    collect_intervals(*zip(*jobs, strict=True), "bank", tmp_path / "i.csv", tmp_path / "d.csv")
    intervals = pd.read_csv(tmp_path / "i.csv").set_index("model")
    assert intervals.loc["dpmm", "value"] == pytest.approx(0.8)
    assert intervals.loc["dpmm", "seeds"] == 2
    assert intervals.loc["bank", "high"] - intervals.loc["bank", "low"] == pytest.approx(0.392, abs=0.03)
    difference = pd.read_csv(tmp_path / "d.csv").iloc[0]
    assert (difference["model"], difference["minus"]) == ("dpmm", "bank")
    assert difference[["value", "low", "high"]].tolist() == pytest.approx([0, 0, 0], abs=1e-12)


def test_a_difference_is_from_the_baselines_first_score(tmp_path):
    """The first of its catalog entry, not of the alphabet."""
    values = {
        score: ({"pixel_auroc": value}, {"pixel_auroc": np.full(9, value)})
        for score, value in (("mahalanobis", 0.6), ("cosine", 0.8))
    }
    bank = write_files(tmp_path / "bank.json", tmp_path / "bank.h5", "bank", 0, values, 20)
    jobs = [bank, write_job(tmp_path, "dpmm", 0, 0.7, np.full(9, 0.7))]
    collect_intervals(*zip(*jobs, strict=True), "bank", tmp_path / "i.csv", tmp_path / "d.csv")
    assert pd.read_csv(tmp_path / "d.csv")["value"].tolist() == pytest.approx([0.1])


def test_one_or_two_subjects_give_no_interval(tmp_path):
    """All resamples of one subject are the same: an interval of no width, though nothing is known."""
    replicates = np.array([0.7, 0.8, 0.9])
    assert interval(0.8, replicates, 1) == interval(0.8, replicates, 2) == (None, None)
    assert interval(0.8, np.append(replicates, np.nan), 9) == (None, None)  # a resample without an anomalous pixel
    assert interval(0.8, np.full(9, np.nan), 9) == interval(0.8, np.empty(0), 9) == (None, None)
    assert None not in interval(0.8, replicates, 3)
    assert anomalous_subjects(["a", "a", "b", "c"], [True, True, False, True]) == 2
    jobs = [write_job(tmp_path, model, 0, 0.8, np.full(50, 0.8), n_subjects=2) for model in ("bank", "dpmm")]
    collect_intervals(*zip(*jobs, strict=True), "bank", tmp_path / "i.csv", tmp_path / "d.csv")
    for name in ("i.csv", "d.csv"):
        frame = pd.read_csv(tmp_path / name)
        assert frame["value"].notna().all()
        assert frame[["low", "high"]].isna().all().all()


def student(value, replicates, n):
    """By hand: t times the standard error of n subjects."""
    half = stats.t.ppf(0.975, n - 1) * np.std(replicates) * np.sqrt(n / (n - 1))
    return [value - half, value + half]


def test_an_interval_is_students_on_the_logit_of_a_metric_and_of_a_difference_as_it_is():
    replicates = np.array([0.7, 0.8, 0.9, 0.85])
    logits = student(np.log(0.8 / 0.2), np.log(replicates / (1 - replicates)), 5)
    assert interval(0.8, replicates, 5) == pytest.approx(1 / (1 + np.exp(-np.array(logits))))
    assert interval(0.1, replicates - 0.7, 5, difference=True) == pytest.approx(student(0.1, replicates, 5))


def test_an_interval_of_a_metric_stays_between_zero_and_one_where_a_resample_is_perfect():
    low, high = interval(0.95, np.array([1.0, 0.9, 0.8, 1.0]), 4)
    assert low == pytest.approx(student(0.95, [1.0, 0.9, 0.8, 1.0], 4)[0])
    assert high == 1
    assert interval(1.0, np.ones(9), 4) == (1, 1)


def test_intervals_of_few_subjects_cover_more_often_than_percentiles():
    """Mean over six subjects of a share, 300 studies: about 95 %, where percentiles cover less than 90 %."""
    draw, truth, ours, percentiles = np.random.default_rng(3), 0.6, 0, 0
    for number in range(300):
        subjects = draw.beta(3, 2, size=6)
        replicates = resampling_weights([True] * 6, 300, seed=number) @ subjects / 6
        low, high = interval(subjects.mean(), replicates, 6)
        ours += low <= truth <= high
        low, high = np.percentile(replicates, [2.5, 97.5])
        percentiles += low <= truth <= high
    assert 0.92 <= ours / 300 <= 0.98
    assert percentiles / 300 < 0.9


@pytest.mark.parametrize("anomalous", [2, 3])
def test_subjects_with_an_anomaly_are_counted_from_the_files(tmp_path, anomalous):
    """Four subjects, of which some have a lesion: evaluated, then collected."""
    rows, generator = [], np.random.default_rng(0)
    for split, count in (("train", 1), ("valid", 2), ("test", 8)):
        for index in range(count):
            path, mask = (tmp_path / f"{split}-{index}{end}.png" for end in ("", "-mask"))
            label = "anomalous" if split == "test" and index < 2 * anomalous else "normal"
            pixels = np.zeros((16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            pixels[2:8, 2:8] = 255
            Image.fromarray(pixels).save(mask)
            rows.append(image_row(split, label, path, mask if label == "anomalous" else None, f"s{index // 2}", index))
    manifest = make_manifest(rows)
    for split, count in (("valid", 2), ("test", 8)):
        maps = generator.random((count, 4, 4)).astype(np.float32)
        write_scores(tmp_path / f"{split}.h5", {"cosine": maps}, manifest)
    labels = {"dataset": "d", "embedding": "e", "model": "m", "seed": "0", "options": {"scores": ["cosine"]}}
    evaluate_scores(
        test_scores=tmp_path / "test.h5", valid_scores=tmp_path / "valid.h5", manifest=manifest,
        labels=labels, protocol=Protocol(resamples=20),
        metrics_path=tmp_path / "m.json", curves_path=tmp_path / "m.h5",
    )  # fmt: skip
    collect_intervals([tmp_path / "m.json"], [tmp_path / "m.h5"], "m", tmp_path / "i.csv", tmp_path / "d.csv")
    frame = pd.read_csv(tmp_path / "i.csv")
    assert len(frame) > 5
    assert frame["low"].notna().all() == (anomalous == 3)
    assert frame["low"].isna().all() == (anomalous == 2)


def slow_metrics(maps, masks, thresholds, chosen):
    """Metrics of the images ``chosen`` (with repetition), pooled pixel by pixel with scikit-learn and NumPy."""
    scores = np.stack([anomaly_map(maps[image], masks.shape[1:]) for image in chosen]).ravel()
    anomalous = (masks[chosen] > 0).ravel()
    above = scores > thresholds["threshold_fpr05"]
    return {
        "pixel_auroc": sk.roc_auc_score(anomalous, scores),
        "pixel_average_precision": sk.average_precision_score(anomalous, scores),
        "dice_fpr05": 2 * (above & anomalous).sum() / (above.sum() + anomalous.sum()),
    }


def test_intervals_of_a_paired_difference_are_those_of_a_slow_reference(case, tmp_path):
    """Two models on the same subjects: every resample recomputed from all its pixels."""
    maps, masks, validation, _ = case
    labels = np.arange(len(SUBJECTS)) < len(SUBJECTS) // 2
    bootstrap = Bootstrap.of(SUBJECTS, labels, 30)
    better = maps + 0.5 * (masks[:, 1::3, 1::3] > 0)
    found, jobs, slow = {}, [], {}
    for name, scores in (("bank", maps), ("dpmm", better.astype(np.float32))):
        result = evaluate_stream(scores, masks, validation, bootstrap=bootstrap)
        found[name] = result
        files = tmp_path / f"{name}.json", tmp_path / f"{name}.h5"
        jobs.append(write_files(*files, name, 0, {"cosine": (result.values, result.replicates)}, 4))
        draws = [
            np.repeat(np.arange(len(SUBJECTS)), draw.astype(int)[bootstrap.subjects]) for draw in bootstrap.weights
        ]
        slow[name] = pd.DataFrame([slow_metrics(scores, masks, result.values, chosen) for chosen in draws])
    collect_intervals(*zip(*jobs, strict=True), "bank", tmp_path / "i.csv", tmp_path / "d.csv")
    intervals = pd.read_csv(tmp_path / "i.csv").set_index(["model", "metric"])
    differences = pd.read_csv(tmp_path / "d.csv").set_index("metric")
    for metric in slow["bank"]:
        for name, values in slow.items():
            value = found[name].values[metric]
            expected = 1 / (1 + np.exp(-np.array(student(np.log(value / (1 - value)), logit(values[metric]), 4))))
            assert intervals.loc[(name, metric), ["low", "high"]].tolist() == pytest.approx(expected, abs=1e-2)
        value = found["dpmm"].values[metric] - found["bank"].values[metric]
        expected = student(value, slow["dpmm"][metric] - slow["bank"][metric], 4)
        assert differences.loc[metric, ["low", "high"]].tolist() == pytest.approx(expected, abs=1e-2)
        assert differences.loc[metric, "value"] == pytest.approx(
            found["dpmm"].values[metric] - found["bank"].values[metric]
        )
    assert differences.loc["pixel_auroc", "value"] > 0
