"""A level of what is asked for changes with the options that decide it, and with no others."""

import pytest
import yaml

from dinodp.configuration import Configuration
from dinodp.configuration.asked import PLACES, asked_for
from dinodp.jobs.asked import ask, made_for
from dinodp.options import places

NAMES = {"dataset": "phantoms", "embedding": "classical", "model": "dpmm_demo", "seed": "0", "split": "test",
         "shard": "0", "shards": "2", "table": "table1", "extension": "csv"}  # fmt: skip
RUN = {"datasets": ["phantoms"], "embeddings": ["classical"], "models": ["memory_bank", "dpmm_demo"], "seeds": [0, 1]}
EVALUATED, COMPARED = ("mask_rules", "smoothing_sigma"), ("mask_rules", "aupr")


@pytest.fixture(autouse=True)
def nothing_asked():
    yield
    ask({})


@pytest.fixture
def said(root):
    """{place: what is asked of it} under a change of the configuration."""
    catalog = yaml.safe_load((root / "config/catalog.yaml").read_text())

    def under(**change):
        content = {**catalog, "run": {"title": "t", "note": "n", **RUN, **change.pop("run", {})}}
        for kind, entries in change.items():
            merged = {name: {**content[kind].get(name, {}), **entry} for name, entry in entries.items()}
            content[kind] = {**content[kind], **merged}
        configuration = Configuration.of(content)
        choices = configuration.run.plain()
        keys = [{key: choices[key] for key in names} for names in (EVALUATED, COMPARED)]
        ask(asked_for(configuration, *keys))
        return {pattern: made_for(places.fill(pattern, **NAMES)) for pattern in PLACES}

    return under


def changed(before, after):
    return {pattern for pattern in before if before[pattern] != after[pattern]}


VERIFIED = {places.fill(places.VERIFICATION, extension="json")}
OF_DATA = {places.MANIFEST, places.CHECKSUMS, places.CASES} | VERIFIED
OF_EMBEDDING = {places.TOKENS, places.TOKENS_SHARD, places.TOKENS_COST, places.TOKENS_SHARD_COST}
ALIGNED = {places.fill(places.ALIGNMENT, extension="csv")}
OF_MODEL = {places.MODEL, places.MODEL_COST}
OF_SCORES = {places.SCORES, places.SCORES_SHARD, places.SCORES_COST, places.SCORES_SHARD_COST}
OF_METRICS = {places.METRICS, places.CURVES, places.STRATA}
TABLES = {places.METRICS_TABLE, places.INTERVALS, places.DIFFERENCES, places.STRATA_TABLE, places.TABLE}
COSTS = {places.COSTS_TABLE}
AFTER = OF_SCORES | OF_METRICS | TABLES | COSTS


def test_every_place_is_asked_for_something_by_name(said):
    found = said()
    assert all(found.values())
    assert found[places.MODEL]["model"].startswith("dpmm_demo ")
    assert set(PLACES) == OF_DATA | OF_EMBEDDING | ALIGNED | OF_MODEL | AFTER


@pytest.mark.parametrize(
    ("change", "places_that_change"),
    [
        ({"datasets": {"phantoms": {"seed": 5}}}, set(PLACES)),
        ({"datasets": {"phantoms": {"accept": ["image_size"]}}}, set()),
        ({"datasets": {"phantoms": {"expect": {"size": [3, 3]}}}}, VERIFIED),
        ({"embeddings": {"classical": {"resolution": 112}}}, set(PLACES) - OF_DATA),
        ({"embeddings": {"classical": {"batch_size": 3}}}, set()),
        ({"embeddings": {"classical": {"grid": [4, 4]}}}, set(PLACES) - OF_DATA - OF_EMBEDDING),
        ({"models": {"dpmm_demo": {"step_rate": 0.9}}}, OF_MODEL | AFTER),
        ({"models": {"dpmm_demo": {"scores": ["cosine"]}}}, AFTER),
        ({"models": {"kmeans_k100": {"components": 7}}}, set()),
        ({"run": {"image_score_fraction": 0.5}}, AFTER),
        ({"run": {"image_score_sigma": 1.0}}, AFTER),
        ({"run": {"smoothing_sigma": 4.0}}, OF_METRICS | TABLES),
        ({"run": {"baseline": "dpmm_demo"}}, {places.INTERVALS, places.DIFFERENCES}),
        ({"run": {"aupr": "average_precision"}}, {places.TABLE}),
        ({"run": {"models": ["dpmm_demo", "memory_bank"]}}, set()),
        ({"run": {"models": ["dpmm_demo"]}}, TABLES | COSTS),
        ({"run": {"seeds": [0, 1, 2]}}, (TABLES | COSTS) - {places.STRATA_TABLE}),
        ({"run": {"figure_models": ["dpmm_demo"]}}, {places.STRATA_TABLE}),
        ({"run": {"title": "Another", "cache": "memory", "shards": 3, "device": "cpu"}}, set()),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",  # a set has another order in each worker
)
def test_what_changes_with_a_key(said, change, places_that_change):
    assert changed(said(), said(**change)) == places_that_change


def test_where_an_archive_is_unpacked_changes_nothing(said):
    """A data set that has an archive lies where that is unpacked, or at its root."""
    archive = {"name": "bmad_mirror", "member": "Brain"}
    entry = {"source": "bmad", "archive": archive}
    one, other = (said(datasets={"phantoms": {**entry, "root": root}}) for root in ("a", "b"))
    assert one == other
