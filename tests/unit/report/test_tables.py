"""Tables: numbers worked out by hand, published values matched, formats escaped."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dinodp import store
from dinodp.errors import InputError
from dinodp.evaluation.collecting import collect_metrics
from dinodp.families import model_options
from dinodp.jobs.origin import write_result
from dinodp.options.protocol import Protocol, read_published
from dinodp.report.tables import TABLES
from dinodp.report.tables.latex import escape_latex
from dinodp.report.tables.rows import primary_scores
from dinodp.report.tables.table import Table
from dinodp.report.tables.writing import write_table

PUBLISHED = Path(__file__).parents[3] / "resources/published/published.csv"
PAPER = "dinov2_vits14"
PROTOCOL = Protocol()


def rows(model: str, family: str, score: str, values: dict[str, list[float]], **labels: object) -> list[dict[str, Any]]:
    """Tidy rows; the values of a metric are those of seeds 0, 1, ..."""
    base = {"dataset": "brats2021", "embedding": PAPER, "normalised": "" if family == "control" else "yes"}
    base |= {"variant": False, "primary": True}
    labels = {**base, "model": model, "family": family, "score": score, "mask_rule": "gt0", **labels}
    return [
        {**labels, "seed": seed, "metric": metric, "value": value}
        for metric, seeds in values.items()
        for seed, value in enumerate(seeds)
    ]


@pytest.fixture
def published() -> pd.DataFrame:
    return read_published(PUBLISHED, PROTOCOL)


@pytest.fixture
def metrics() -> pd.DataFrame:
    auroc = {"pixel_auroc": [0.95, 0.97], "pixel_aupr_trapezoid": [0.40, 0.44], "pixel_average_precision": [0.3, 0.3]}
    dice = {"dice_fpr10": [0.3, 0.32], "dice_fpr05": [0.4, 0.4], "dice_fpr01": [0.5, 0.46]}
    lesions = {f"lesion_sensitivity_{limit}": [0.1 * limit, 0.1 * limit] for limit in (1, 2, 4)}
    return pd.DataFrame(
        rows("random", "control", "random", {"pixel_auroc": [0.5], "dice_fpr10": [0.01]})
        + rows("dpmm_diag", "dpmm", "cosine", auroc | dice | lesions)
        + rows("dpmm_diag", "dpmm", "log_likelihood", {"pixel_auroc": [0.9, 0.9]}, primary=False)
        + rows("dpmm_raw", "dpmm", "cosine", {"pixel_auroc": [0.9506]}, normalised="no")
        + rows("memory_bank", "memory_bank", "cosine", {"pixel_auroc": [0.98]})
        + rows("memory_bank_4shot", "memory_bank", "cosine", {"pixel_auroc": [0.96]}, variant=True)
        + rows("dpmm_diag", "dpmm", "cosine", {"pixel_auroc": [0.8]}, embedding="vit_tiny")
        + rows("dpmm_diag", "dpmm", "cosine", {"pixel_auroc": [0.7]}, dataset="phantoms")
    )


@pytest.fixture
def cost_rows() -> pd.DataFrame:
    base = {"dataset": "brats2021", "embedding": PAPER, "backbone_ms_per_image": 10.0, "scoring_ms_per_image": 2.5,
            "peak_host_mib": 800.0, "peak_gpu_mib": np.nan, "model_mib": 1.5, "device": "cpu, 2 threads"}  # fmt: skip
    return pd.DataFrame(
        [
            {**base, "model": "dpmm_diag", "seed": 0, "fit_seconds": 10.0, "active_components": 100},
            {**base, "model": "dpmm_diag", "seed": 1, "fit_seconds": 14.0, "active_components": 110},
            {**base, "model": "memory_bank", "seed": 0, "fit_seconds": 1.0, "active_components": np.nan},
        ]
    )


def one(table: Table, **labels: str) -> "pd.Series[Any]":
    frame = table.frame
    for name, value in labels.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def test_table1_means_spreads_and_differences(
    metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame
) -> None:
    table = TABLES["table1"](metrics, cost_rows, published, PROTOCOL)
    row = one(table, dataset="brats2021", embedding=PAPER, model="dpmm_diag")
    assert row["score"] == "cosine"
    assert row["seeds"] == 2
    assert row["pixel_auroc_mean"] == pytest.approx(96.0)
    assert row["pixel_auroc_std"] == pytest.approx(np.sqrt(2))
    assert row["pixel_auroc_published"] == 96.21
    assert row["pixel_auroc_difference"] == pytest.approx(-0.21)
    assert row["pixel_aupr_trapezoid_published"] == 43.43
    assert row["pixel_aupr_trapezoid_difference"] == pytest.approx(-1.43)
    assert "pixel_average_precision_published" not in table.frame


def test_published_value_of_raw_embeddings_and_of_the_bank(
    metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame
) -> None:
    table = TABLES["table1"](metrics, cost_rows, published, PROTOCOL)
    assert one(table, model="dpmm_raw")["pixel_auroc_published"] == 95.06
    assert one(table, model="memory_bank")["pixel_auroc_published"] == 97.71
    assert np.isnan(one(table, model="memory_bank_4shot")["pixel_auroc_published"])
    assert np.isnan(one(table, model="random")["pixel_auroc_published"])


def test_a_variant_has_no_published_value(
    metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame
) -> None:
    """Whatever its name: it is decided from the options."""
    variant = rows("few", "memory_bank", "cosine", {"pixel_auroc": [0.9]}, variant=True)
    variant += rows("dpmm_k50", "dpmm", "cosine", {"pixel_auroc": [0.9]}, variant=True)
    frame = pd.concat([metrics, pd.DataFrame(variant)], ignore_index=True)
    for name in ("few", "dpmm_k50"):
        row = one(TABLES["table1"](frame, cost_rows, published, PROTOCOL), model=name)
        assert np.isnan(row["pixel_auroc_published"])
        assert np.isnan(row["pixel_auroc_difference"])


def test_metrics_say_what_is_a_variant_and_which_score_is_first(tmp_path: Path) -> None:
    options = model_options({"family": "dpmm", "scores": ["mahalanobis", "cosine"]})
    content = {"dataset": "d", "embedding": "e", "model": "few", "seed": "0", **options.labels()}
    values = {score: {"gt0": {"pixel_auroc": 0.5}} for score in ("cosine", "mahalanobis")}
    write_result(tmp_path / "m.json", {**content, "metrics": values}, "dinodp.evaluation", {"manifest": "0"})
    with store.writing(tmp_path / "m.h5", "curves", {}, {"manifest": "0"}):
        pass
    collect_metrics([tmp_path / "m.json"], [tmp_path / "m.h5"], tmp_path / "m.csv")
    frame = pd.read_csv(tmp_path / "m.csv", keep_default_na=False)
    assert frame["variant"].all()
    assert dict(zip(frame["score"], frame["primary"], strict=True)) == {"cosine": False, "mahalanobis": True}
    assert list(primary_scores(frame)["score"]) == ["mahalanobis"]


def test_values_of_one_embedding_are_not_taken_for_another() -> None:
    """The first paper's mixture is of DINOv2, also where DINOv3's values are asked for."""
    other = read_published(PUBLISHED, Protocol(published_as="dinov3_vits16"))
    assert set(other[other["method"] == "dpmm"]["source"]) == {"schulthess2026"}
    mine = read_published(PUBLISHED, PROTOCOL)
    assert set(mine[mine["method"] == "dpmm"]["source"]) == {"schulthess2025", "schulthess2026"}


def test_tables_say_in_what_the_published_protocol_is_another(
    metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame
) -> None:
    notes = TABLES["table1"](metrics, cost_rows, published, Protocol(smoothing_sigma=4)).notes
    assert "Otherwise than in schulthess2025: maps smoothed with sigma 4." in notes
    notes = TABLES["table2"](metrics, cost_rows, published, PROTOCOL).notes
    assert not [note for note in notes if note.startswith("Otherwise")]


def test_another_embedding_has_no_difference(
    metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame
) -> None:
    table = TABLES["table1"](metrics, cost_rows, published, PROTOCOL)
    row = one(table, embedding="vit_tiny")
    assert row["pixel_auroc_published"] == 96.21
    assert np.isnan(row["pixel_auroc_difference"])
    assert np.isnan(one(table, dataset="phantoms")["pixel_auroc_published"])
    assert any("not comparable" in note for note in table.notes)


def test_rows_are_ordered(metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame) -> None:
    frame = TABLES["table1"](metrics, cost_rows, published, PROTOCOL).frame
    models = list(frame["model"][(frame["dataset"] == "brats2021") & (frame["embedding"] == PAPER)])
    assert models == ["memory_bank", "memory_bank_4shot", "dpmm_diag", "dpmm_raw", "random"]
    assert list(frame["dataset"]) == ["brats2021"] * 6 + ["phantoms"]


def test_table2_dice(metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame) -> None:
    row = one(TABLES["table2"](metrics, cost_rows, published, PROTOCOL), model="dpmm_diag")
    assert row["dice_fpr10_mean"] == pytest.approx(31.0)
    assert row["dice_fpr10_difference"] == pytest.approx(31.0 - 31.64)
    assert row["dice_fpr01_published"] == 45.87


def test_table3_has_every_score_of_mixtures_only(
    metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame
) -> None:
    table = TABLES["table3"](metrics, cost_rows, published, PROTOCOL)
    assert set(table.frame["model"]) == {"dpmm_diag", "dpmm_raw"}
    row = one(table, score="log_likelihood")
    assert row["pixel_auroc_difference"] == pytest.approx(90 - 95.49)
    assert one(table, normalised="no")["pixel_auroc_difference"] == pytest.approx(0)


def test_costs(metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame) -> None:
    frame = TABLES["costs"](metrics, cost_rows, published, PROTOCOL).frame
    assert list(frame["model"]) == ["memory_bank", "dpmm_diag"]
    mixture = frame.iloc[1]
    assert mixture["fit_seconds_mean"] == 12
    assert mixture["total_ms_per_image_mean"] == 12.5
    assert mixture["active_components_mean"] == 105
    assert "peak_gpu_mib_mean" not in frame
    assert np.isnan(frame["active_components_mean"].iloc[0])


def test_without_published_the_columns_are_absent(metrics: pd.DataFrame, cost_rows: pd.DataFrame) -> None:
    empty = read_published(PUBLISHED, PROTOCOL).iloc[:0]
    frame = TABLES["table1"](metrics, cost_rows, empty, PROTOCOL).frame
    assert not [column for column in frame if column.endswith(("published", "difference"))]


def test_another_protocol_compares_other_metrics(metrics: pd.DataFrame, cost_rows: pd.DataFrame) -> None:
    protocol = Protocol(aupr="average_precision", threshold_maps="pixel")
    published = read_published(PUBLISHED, protocol)
    table1 = TABLES["table1"](metrics, cost_rows, published, protocol)
    row = one(table1, embedding=PAPER, model="dpmm_diag", dataset="brats2021")
    assert row["pixel_average_precision_difference"] == pytest.approx(30 - 43.43)
    assert "pixel_aupr_trapezoid_published" not in row
    pixel = metrics.assign(metric=metrics["metric"].replace("dice_fpr10", "dice_pixel_fpr10"))
    row = one(TABLES["table2"](pixel, cost_rows, published, protocol), model="dpmm_diag")
    assert row["dice_pixel_fpr10_published"] == 31.64


def test_values_of_the_follow_up(metrics: pd.DataFrame, cost_rows: pd.DataFrame) -> None:
    name = "dinov3_vits16_square"
    protocol = Protocol(
        published_embedding=name, published_as="dinov3_vits16", published_sources=("schulthess2026",)
    )  # fmt: skip
    renamed = metrics[metrics["embedding"] == PAPER].assign(embedding=name)
    table = TABLES["table1"](renamed, cost_rows, read_published(PUBLISHED, protocol), protocol)
    assert one(table, dataset="brats2021", model="dpmm_diag")["pixel_auroc_published"] == 96.12
    assert one(table, model="memory_bank")["pixel_auroc_published"] == 98.38
    assert np.isnan(one(table, model="dpmm_raw")["pixel_auroc_published"])


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_no_matching_row_is_an_input_error(
    name: str, metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame
) -> None:
    only_images = metrics.assign(metric="image_auroc")
    for frame in (only_images, metrics.iloc[:0]):
        with pytest.raises(InputError, match=f"Table '{name}' has no row"):
            TABLES[name](frame, cost_rows, published, PROTOCOL)


def test_costs_without_rows_is_an_input_error(metrics: pd.DataFrame, cost_rows: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="'costs' has no row"):
        TABLES["costs"](metrics, cost_rows.iloc[:0], read_published(PUBLISHED, PROTOCOL), PROTOCOL)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_written_files(
    name: str, metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame, tmp_path: Path
) -> None:
    table = TABLES[name](metrics, cost_rows, published, PROTOCOL)
    csv, md, tex = (tmp_path / f"t.{kind}" for kind in ("csv", "md", "tex"))
    write_table(table, csv, md, tex)
    read = pd.read_csv(csv, keep_default_na=True)
    assert list(read) == list(table.frame)
    numeric = [column for column in read if column.endswith(("_mean", "_std", "_published", "_difference"))]
    assert all(pd.api.types.is_float_dtype(read[column]) or read[column].dtype == int for column in numeric)
    lines = [line for line in md.read_text().splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + len(table.frame)
    latex = tex.read_text()
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    spec = latex.split(r"\begin{tabular}{")[1].split("}")[0]
    data = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in data} == {len(spec) - 1}
    assert (r"\multicolumn" in latex) == (name not in ("costs", "lesions"))
    assert r"dpmm\_diag" in latex
    assert "±" not in latex
    names = [f"t.{kind}{end}" for kind in ("csv", "md", "tex") for end in ("", ".origin.json")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_written_cells(metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame, tmp_path: Path) -> None:
    table = TABLES["table1"](metrics, cost_rows, published, PROTOCOL)
    write_table(table, tmp_path / "t.csv", tmp_path / "t.md", tmp_path / "t.tex")
    assert "96.00 ± 1.41" in (tmp_path / "t.md").read_text()
    assert "-0.21" in (tmp_path / "t.md").read_text()
    latex = (tmp_path / "t.tex").read_text()
    assert r"\multicolumn{2}{c}{brats2021} & \multicolumn{2}{c}{phantoms} \\" in latex
    assert PAPER.replace("_", r"\_") + r" & dpmm\_diag & 96.00 $\pm$ 1.41 & 42.00 $\pm$ 2.83 & 70.00 &  \\" in latex
    assert r"\quad \textit{published} &  & \textit{96.21} & \textit{43.43} &  &  \\" in latex


def test_latex_escape() -> None:
    assert escape_latex(r"a_b & 5 % $x$ #1 {y} ~ ^ \z") == (
        r"a\_b \& 5 \% \$x\$ \#1 \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    )
    assert escape_latex("1 ± 2 < 3") == r"1 $\pm$ 2 \textless{} 3"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex (Debian: texlive-latex-recommended)")
def test_latex_compiles(
    metrics: pd.DataFrame, cost_rows: pd.DataFrame, published: pd.DataFrame, tmp_path: Path
) -> None:
    for name, table in TABLES.items():
        files = (tmp_path / f"{name}.{kind}" for kind in ("csv", "md", "tex"))
        write_table(table(metrics, cost_rows, published, PROTOCOL), *files)
    lines = [r"\documentclass{article}", r"\usepackage{booktabs,graphicx}", r"\begin{document}"]
    lines += [rf"\input{{{name}.tex}}" for name in TABLES]
    (tmp_path / "all.tex").write_text("\n".join([*lines, r"\end{document}", ""]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout[-2000:]
    assert "Overfull" not in result.stdout
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def test_published_file_is_sound() -> None:
    published = pd.read_csv(PUBLISHED)
    keys = ["source", "table", "method", "score", "normalized", "dataset", "metric"]
    assert list(published) == [*keys, "value", "std", "provenance"]
    assert not published.duplicated(keys).any()
    assert published["value"].notna().all()
    assert set(published["provenance"]) == {"verbatim", "second-hand"}
