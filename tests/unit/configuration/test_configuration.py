"""The whole configuration: names, defaults, overlays, and what is checked before the first job."""

import json

import pytest
import yaml
from conftest import ROOT
from snakemake.utils import update_config

from dinodp.backbones import embedding_options, load_backbone
from dinodp.configuration import Configuration
from dinodp.errors import InputError

PARITY = ROOT / "tests/data/hub_parity_square_448"


def configured(*overlays, name="demo"):
    """Catalog, run file and overlays as Snakemake merges them."""
    merged = yaml.safe_load((ROOT / "config/catalog.yaml").read_text())
    for content in (yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()), *overlays):
        update_config(merged, content)
    return Configuration.of(merged)


@pytest.mark.parametrize(
    ("overlay", "sentence"),
    [
        ({"run": {"seedz": [0]}}, "^Configuration, run: unknown key 'seedz'; it has title, note, datasets"),
        ({"runs": {}}, "^Configuration, the top level: unknown key 'runs'; it has archives, datasets"),
        ({"run": {"seeds": [-1]}}, r"run\.seeds\.0: -1 is below the least allowed, 0"),
        ({"run": {"seeds": []}}, r"run\.seeds: \[\] has too few values"),
        ({"run": {"mask_rules": ["gt1"]}}, r"run\.mask_rules\.0: 'gt1' is not allowed; choose 'gt0' or 'eq255'"),
        ({"run": {"models": ["dpmm_typo"]}}, "^Unknown name 'dpmm_typo' under run.models: the catalog"),
        ({"run": {"baseline": "bnak"}}, "^Unknown name 'bnak' under run.baseline"),
        ({"run": {"figure_models": ["gaussian"]}}, "run.figure_models names the model 'gaussian', which is not among"),
        ({"run": {"alignment_models": ["memory_bank"]}}, "memory_bank is no mixture; choose models"),
        ({"run": {"protocols": {"a": {"model": "gaussian"}}}}, "run.protocols names the model 'gaussian', which"),
        ({"run": {"protocols": {"a": {"modle": "x"}}}}, r"run\.protocols\.a: unknown key 'modle'; it has model"),
        ({"run": {"figures": ["anomaly_map"]}}, "Unknown name 'anomaly_map' under run.figures: choose from a"),
        ({"models": "dpmm"}, r"models: 'dpmm' is no mapping of names to entries\."),
        ({"run": {"device": "gpu"}}, "run.device: 'gpu' is not allowed; choose 'auto', 'cpu', 'cuda', 'mps' or 'xpu'"),
        ({"models": {"my-model": {"family": "dpmm"}}}, r"models: 'my-model' does not match '\^\[a-z0-9_\]\+\$'"),
        ({"models": {"x": {"family": "memory_bank", "epochs": 7}}}, r"models\.x: unknown key 'epochs' for the family"),
        ({"models": {"x": {"family": "dppm"}}}, r"models\.x\.family: 'dppm' is not known; choose one of"),
        ({"datasets": {"phantoms": {"sed": 3}}}, r"datasets\.phantoms: unknown key 'sed' for the source"),
        ({"datasets": {"x": {"source": "png"}}}, r"datasets\.x\.source: 'png' is not known; choose one of bids, bmad"),
        ({"datasets": {"resc": {"expect": {"szie": 3}}}}, r"datasets\.resc\.expect: unknown key 'szie'.*; it has"),
        ({"datasets": {"resc": {"archive": {"name": "x"}}}}, "^$"),
        ({"embeddings": {"x": {}}}, r"embeddings\.x\.backbone: it must be `classical`, a hub name or a directory"),
        ({"embeddings": {"classical": {"layers": [3]}}}, r"embeddings\.classical\.layers\.0: 3 is not allowed; choose"),
        ({"embeddings": {"classical": {"revision": "v1"}}}, r"embeddings\.classical\.revision: 'v1' is not allowed"),
        ({"archives": {"x": {"file": "a"}}}, r"archives\.x: it needs a url"),
    ],
)
def test_what_is_wrong_is_one_sentence(overlay, sentence):
    if sentence == "^$":  # an entry that the run does not use may refer to an archive that is not there
        assert configured(overlay).run.title
        return
    with pytest.raises(InputError, match=sentence) as error:
        configured(overlay)
    assert "\n" not in str(error.value)


def test_an_archive_of_a_data_set_of_the_run_exists():
    overlay = {"datasets": {"resc": {"archive": {"name": "gone"}}}, "run": {"datasets": ["resc"]}}
    with pytest.raises(InputError, match=r"Unknown name 'gone' under run\.datasets \(resc, archive\)"):
        configured(overlay)


@pytest.mark.parametrize(("layers", "right"), [([-1], True), ([1, 2], True), ([3], False), ([0], False)])
def test_layers_of_a_local_backbone_are_checked_before_the_first_job(layers, right):
    entry = {"backbone": str(PARITY), "resolution": 56, "layers": layers}
    overlay = {"embeddings": {"here": entry}, "run": {"embeddings": ["here"]}}
    if right:
        assert configured(overlay).embeddings["here"].layers == tuple(layers)
        return
    with pytest.raises(InputError, match=r"^Configuration, embeddings\.here\.layers: Unknown layer .*choose 1 to 2"):
        configured(overlay)


def test_a_local_backbone_without_weights_ends_before_the_first_job(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    overlay = {"embeddings": {"here": {"backbone": str(tmp_path)}}, "run": {"embeddings": ["here"]}}
    with pytest.raises(InputError, match="has no weights"):
        configured(overlay)


def test_an_overlay_takes_a_pinned_revision_back():
    overlay = {"embeddings": {"dinov2_vits14": {"revision": None}}}
    assert configured(overlay).embeddings["dinov2_vits14"].revision is None
    assert "revision" not in configured(overlay).plain()["embeddings"]["dinov2_vits14"]


def test_a_local_directory_needs_no_revision(caplog, monkeypatch):
    """The README's way for machines without a network: only `backbone:` is changed."""
    monkeypatch.setattr("dinodp.backbones.vision_transformer.logger.propagate", True)
    caplog.set_level("INFO")
    overlay = {"embeddings": {"dinov2_vits14": {"backbone": str(PARITY), "resolution": 56}}}
    options = configured(overlay).embeddings["dinov2_vits14"]
    assert options.load("cpu").provenance()["revision"] == "local"
    assert "is a local directory: the revision ed25f3a" in caplog.text


def test_defaults_stand_in_what_jobs_see():
    plain = configured().plain()
    assert plain["run"]["cache"] == "none"
    assert plain["run"]["device"] == "auto"
    assert plain["models"]["kmeans_k100"]["images_per_batch"] == 12
    json.dumps(plain)


def test_an_embedding_depends_on_neither_grid_nor_batch_size():
    entry = {"backbone": "classical", "grid": [3, 3], "batch_size": 2}
    assert embedding_options(entry).decisive() == embedding_options({"backbone": "classical"}).decisive()


def test_a_data_set_without_a_root_lies_where_its_archive_is_unpacked():
    entry = {"source": "bmad", "archive": {"name": "bmad_mirror", "member": "Brain"}}
    found = configured({"datasets": {"x": entry}}).datasets["x"]
    assert found.root == "data/archives/bmad_mirror/Brain"


def test_what_is_used_is_what_the_run_names():
    used = configured().used()
    assert list(used["models"]) == ["memory_bank", "dpmm_demo", "dpmm_demo_raw", "random", "oracle"]
    assert used["models"]["dpmm_demo"]["components"] == 100


def test_backbones_take_the_defaults_of_their_options():
    assert load_backbone("classical").resolution == 448
