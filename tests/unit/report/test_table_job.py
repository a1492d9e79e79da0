"""One table from the run's files, and the page of all."""

from pathlib import Path

import pandas as pd
import pytest
from made_files import write_csv

from dinodp.errors import InputError
from dinodp.jobs.origin import table_origin, write_table
from dinodp.options.protocol import Protocol
from dinodp.report.table_job import make_table, summarise

PUBLISHED = Path(__file__).parents[3] / "resources/published/published.csv"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A mixture's values under two mask rules, and its cost."""
    place = {"dataset": "brats2021", "embedding": "dinov2_vits14", "model": "dpmm_diag", "seed": 0}
    labels = {**place, "family": "dpmm", "normalised": "yes", "variant": False, "score": "cosine", "primary": True}
    rows = [
        {**labels, "mask_rule": rule, "metric": "pixel_auroc", "value": value}
        for rule, value in (("gt0", 0.95), ("eq255", 0.85))
    ]
    write_csv(pd.DataFrame(rows), tmp_path / "metrics.csv")
    cost = {"fit_seconds": 2.0, "backbone_ms_per_image": 1.0, "scoring_ms_per_image": 1.0, "peak_host_mib": 9.0,
            "peak_gpu_mib": None, "model_mib": 1.0, "active_components": 5, "device": "cpu"}  # fmt: skip
    write_csv(pd.DataFrame([{**place, **cost}]), tmp_path / "costs.csv")
    return tmp_path / "metrics.csv", tmp_path / "costs.csv"


@pytest.mark.parametrize(("rule", "value"), [("gt0", 95), ("eq255", 85)])
def test_the_first_mask_rule_is_shown(files: tuple[Path, Path], tmp_path: Path, rule: str, value: float) -> None:
    outputs = [tmp_path / f"t.{kind}" for kind in ("csv", "md", "tex")]
    make_table("table1", *files, PUBLISHED, *outputs, protocol=Protocol(mask_rules=(rule, "gt0")))
    found = pd.read_csv(outputs[0])
    assert found["pixel_auroc_mean"].tolist() == [value]
    assert f"Mask rule: {rule}." in outputs[1].read_text()
    assert f"{value:.2f}" in outputs[2].read_text()


def test_a_table_without_rows_is_left_out_with_a_sentence(files: tuple[Path, Path], tmp_path: Path) -> None:
    outputs = [tmp_path / f"t.{kind}" for kind in ("csv", "md", "tex")]
    make_table("table2", *files, PUBLISHED, *outputs, protocol=Protocol())
    said = "Left out: Table 'table2' has no row: the run has no metric among dice_fpr10, dice_fpr05, dice_fpr01"
    assert pd.read_csv(outputs[0])["left_out"][0].startswith(said)
    assert outputs[1].read_text().startswith(said)
    assert outputs[2].read_text().startswith(f"% {said}")


def test_a_data_set_without_a_row_is_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    metrics = pd.read_csv(files[0])
    other = metrics.assign(dataset="oct2017", metric="image_auroc")
    write_csv(pd.concat([metrics, other]), files[0])
    outputs = [tmp_path / f"t.{kind}" for kind in ("csv", "md", "tex")]
    make_table("table1", *files, PUBLISHED, *outputs, protocol=Protocol())
    assert "Left out, as there is no such value of them: oct2017." in (tmp_path / "t.md").read_text()


def test_an_unknown_table_is_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Unknown table 'table9': choose one of costs, lesions, table1"):
        make_table("table9", *files, PUBLISHED, *[tmp_path / "t"] * 3, protocol=Protocol())


def test_the_summary_holds_title_note_and_tables(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.md", f"\n**{name}**\n\n", "dinodp.report.tables.writing", {})
    summarise("Title", "What it says.", [tmp_path / "a.md", tmp_path / "b.md"], tmp_path / "s.md")
    assert (tmp_path / "s.md").read_text() == "# Title\n\nWhat it says.\n\n**a**\n\n**b**\n"


def test_a_damaged_or_deleted_table_is_not_carried_into_the_summary(files: tuple[Path, Path], tmp_path: Path) -> None:
    outputs = [tmp_path / f"t.{kind}" for kind in ("csv", "md", "tex")]
    make_table("table1", *files, PUBLISHED, *outputs, protocol=Protocol())
    for path in outputs:
        assert set(table_origin(path).made_from) == {"metrics.csv", "costs.csv"}
    outputs[1].write_text(outputs[1].read_text().replace("95", "99"))
    with pytest.raises(InputError, match=r"t\.md is not as it was written: .*delete it and run again"):
        summarise("Title", "", [outputs[1]], tmp_path / "s.md")
    outputs[1].unlink()
    with pytest.raises(InputError, match=r"There is no file .*t\.md"):
        summarise("Title", "", [outputs[1]], tmp_path / "s.md")
