"""Gather what a run has shown and render it as one page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from dinodp.images import MASK_RULES
from dinodp.jobs.files import write_text
from dinodp.jobs.origin import name_of, origin_of, read_result, read_table, require_made_from, table_origin
from dinodp.metrics.definitions import METRICS
from dinodp.options.protocol import Protocol, read_published
from dinodp.report import comparison, origin, pages
from dinodp.report.analysis import alignments, strata_columns, strata_rows
from dinodp.report.case_gallery import galleries
from dinodp.report.curve_panels import curve_panels
from dinodp.report.pictures import SIDE, colour_scale
from dinodp.report.protocols import protocol_table
from dinodp.report.run_files import ReportFiles
from dinodp.report.students import student_rows
from dinodp.report.tables.headings import HEADINGS

TEMPLATES = Path(__file__).with_name("templates")


def write_report(path: Path, files: ReportFiles, config: Mapping[str, Any], command: str, commit: str) -> None:
    """Write the report of a run: verdicts, differences, galleries, curves, figures, cost, provenance.

    ``config``: what the run used (``run``, ``datasets``, ``embeddings``, ``models``); ``command`` remakes the page;
    ``commit``: of the code, or "unknown". Raises InputError for files that are not as they were written, or not of
    one run.
    """
    _require_one_run(files)
    run = config["run"]
    protocol = Protocol.of(run)
    metrics = read_table(files.metrics, keep_default_na=False, dtype={"normalised": str})
    intervals, differences = _table(files.intervals), _table(files.differences)
    published = read_published(files.published, protocol)
    rows = comparison.result_rows(metrics, intervals, published, protocol, config)
    first = comparison.headline(rows, protocol)
    minus = comparison.difference_rows(differences, protocol.mask_rule, first)
    sections = galleries(files, protocol)
    data, strata = origin.data_rows(files), strata_rows(files.strata)
    page = (
        _environment()
        .get_template("report.html")
        .render(
            run=run,
            rows=rows,
            first=first,
            summary=comparison.summary(first),
            marked=any(row["verdict"] in comparison.COMPARABLE for row in first),
            overview=comparison.overview(protocol, rows),
            by_model=comparison.by_model(rows, protocol.mask_rule),
            strata=strata,
            strata_columns=strata_columns(protocol, strata),
            alignments=alignments(files.alignment, files.alignment_figures),
            protocols=protocol_table(config, rows),
            counts=comparison.counts(first),
            axis=comparison.scale(_offsets(first), "difference", "low", "high"),
            differences=minus,
            difference_axis=comparison.scale(minus, "value", "low", "high"),
            sections=sections,
            panels={section["key"]: curve_panels(section["models"]) for section in sections},
            data=data,
            limits=origin.limits(config, rows, data),
            costs=comparison.cost_rows(read_table(files.costs)),
            students=student_rows(files.students, files.student_costs),
            provenance=origin.provenance(files, commit),
            command=command,
            config=yaml.safe_dump(json.loads(json.dumps(dict(config))), sort_keys=False, allow_unicode=True),
            side=SIDE,
            script_data=_script_data(sections),
        )
    )
    write_text(path, page)


def _require_one_run(files: ReportFiles) -> None:
    """The tables of the run are of the metrics of the models that are shown."""
    for model in files.models:
        digest = origin_of(read_result(model.metrics)).content_sha256
        for table in filter(None, (files.metrics, files.intervals, files.differences)):
            made_from = table_origin(table).made_from
            require_made_from(table, made_from, name_of(model.metrics), digest, f"{model.metrics} as it is now")


def _table(path: Path | None) -> pd.DataFrame | None:
    return None if path is None else read_table(path)


def _offsets(rows: list[comparison.Record]) -> list[comparison.Record]:
    """Difference and interval of each row with respect to the published value, where there is a difference."""
    known = [row for row in rows if row["difference"] is not None]
    return [{**row, **{name: _minus(row[name], row["published"]) for name in ("low", "high")}} for row in known]


def _minus(value: float | None, published: float) -> float | None:
    return None if value is None else value - published


def _script_data(sections: list[dict[str, Any]]) -> str:
    """What the page's script needs, as JSON that cannot end its element."""
    content = {
        section["key"]: {
            "cases": [{name: case[name] for name in ("height", "width", "mask")} for case in section["cases"]],
            "models": [_for_script(model) for model in section["models"]],
        }
        for section in sections
    }
    text = json.dumps({"colours": colour_scale(), "galleries": content}, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _for_script(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in model.items() if name != "curves"}


def _environment() -> jinja2.Environment:
    environment = pages.environment(TEMPLATES)
    shared: dict[str, Any] = environment.globals
    environment.filters["number"] = number
    shared["names"] = HEADINGS
    shared["digits"] = {name: metric.decimals for name, metric in METRICS.items()}
    shared["mask_rules"] = MASK_RULES
    shared["cost_digits"] = comparison.COST_DIGITS
    shared["source_of"] = lambda name: (TEMPLATES / name).read_text(encoding="utf-8")
    return environment


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number with fixed decimals, a true minus sign, and a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")
