"""Print config/README.md from the types: python -m dinodp.configuration.page > config/README.md."""

from collections.abc import Iterable, Iterator, Mapping

from dinodp.backbones import BACKBONES, EmbeddingOptions
from dinodp.datasets.sources import SOURCES
from dinodp.datasets.sources.base import DatasetOptions
from dinodp.families import FAMILIES
from dinodp.families.base import ModelOptions
from dinodp.options.archive import ArchiveOptions
from dinodp.options.base import Options, allowed_values, unit_of
from dinodp.options.distillation import DistillationOptions
from dinodp.options.run import ProtocolOptions, RunOptions

HEADER = """# Configuration

`catalog.yaml` says what exists, `demo.yaml`, `paper.yaml` and the others what to run: a run file names entries of the
catalog. `snakemake --configfile config/paper.yaml` merges a run file over the catalog: mappings are merged, lists
replaced. So a run file may also add or change entries; `key: null` takes a key back to its default. Unknown keys and
wrong values are refused before the first job. Write `1.0e-6`, not `1e-6`, which YAML reads as text.

| run file | what it runs |
|---|---|
| `demo.yaml` | phantoms and a classical descriptor, without a download (the default) |
| `paper.yaml` | the paper's protocol, and one correction of it after the other |
| `follow_up.yaml` | the follow-up's: square input, masks resized, DINOv3 |
| `anomalydino.yaml` | AnomalyDINO's: few-shot memory banks, smoothed maps |
| `variants.yaml` | every variant of the mixture, and the ablations |
| `baselines.yaml` | the baselines that a reviewer would ask for, beside bank and mixtures (docs/results.md) |
| `layer_fusion.yaml` | two layers joined, against their maps fused (docs/results.md) |
| `oasis*.yaml`, `brats2015.yaml`, `beyond_the_paper.yaml` | real images through ViT-Tiny on a small machine |

This page is made from the types in `scripts/dinodp` (`make config`).
"""
TABLE = "| key | values | unit | default | meaning |\n|---|---|---|---|---|"


def rows(kind: type[Options], without: Iterable[str] = ()) -> Iterator[str]:
    """One line of a Markdown table per key."""
    for name, field in kind.model_fields.items():
        if name not in without:
            default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
            words = [f"`{name}`", allowed_values(field), unit_of(field), default, field.description or ""]
            yield f"| {' | '.join(words)} |"


def _default(value: object) -> str:
    if value is None or value == () or value == {}:
        return ""
    shown = list(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else value
    return f"`{shown}`"


def table(title: str, kind: type[Options], without: Iterable[str] = ()) -> str:
    """A section with the keys of a kind of options."""
    text = (kind.__doc__ or "").splitlines()[0]
    return "\n".join([f"{title}\n\n{text}\n\n{TABLE}", *rows(kind, without), ""])


def family_of_tables(title: str, base: type[Options], key: str, kinds: Mapping[str, type[Options]]) -> Iterator[str]:
    """The keys that all kinds share, then those of each."""
    yield table(f"## {title}", base)
    for name, kind in kinds.items():
        own = [*rows(kind, without={*base.model_fields, key})]
        text = (kind.__doc__ or "").splitlines()[0].replace("``", "`")
        scores = f" Scores: {', '.join(f'`{score}`' for score in getattr(kind, 'SCORES', ()))}."
        heading = f"### {key}: {name}\n\n{text}{scores if hasattr(kind, 'SCORES') else ''}\n"
        yield "\n".join([heading, *([TABLE, *own, ""] if own else [])])


def page() -> str:
    """The whole page."""
    parts = [
        HEADER,
        table("## run", RunOptions),
        table("### run.protocols.NAME", ProtocolOptions),
        table("### run.distillation", DistillationOptions),
        *family_of_tables("embeddings.NAME", EmbeddingOptions, "backbone", BACKBONES),
        *family_of_tables("models.NAME", ModelOptions, "family", FAMILIES),
        *family_of_tables("datasets.NAME", DatasetOptions, "source", SOURCES),
        table("## archives.NAME", ArchiveOptions),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
