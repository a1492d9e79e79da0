"""Print config/README.md from the schema: python config/schemas/describe.py > config/README.md."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

SCHEMA = Path(__file__).with_name("config.schema.yaml")
HEADER = """# Configuration

`catalog.yaml` says what exists, `demo.yaml`, `paper.yaml` and the others what to run: a run file names entries of the
catalog. `snakemake --configfile config/paper.yaml` merges a run file over the catalog (mappings are merged, lists
replaced), so a run file may also add or change entries. Unknown keys are refused. Write `1.0e-6`, not `1e-6`, which
YAML reads as text. The keys of a data set depend on its source: docs/data.md.

| run file | what it runs |
|---|---|
| `demo.yaml` | phantoms and a classical descriptor, without a download (the default) |
| `paper.yaml` | the paper's protocol, and one correction of it after the other |
| `follow_up.yaml` | the follow-up's: square input, masks resized, DINOv3 |
| `anomalydino.yaml` | AnomalyDINO's: few-shot memory banks, smoothed maps |
| `variants.yaml` | every variant of the mixture, and the ablations |
| `oasis*.yaml`, `brats2015.yaml` | real images through ViT-Tiny on a small machine |

This page is made from `schemas/config.schema.yaml`.
"""


def allowed(schema: dict[str, Any]) -> str:
    """The values that a key may take, in words."""
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return "list of " + (allowed(schema["items"]) or "values")
    limits = [f"≥ {schema['minimum']}"] if "minimum" in schema else []
    limits += [f"> {schema['exclusiveMinimum']}"] if "exclusiveMinimum" in schema else []
    limits += [f"≤ {schema['maximum']}"] if "maximum" in schema else []
    return " ".join([str(schema.get("type", "")), *limits])


def rows(schema: dict[str, Any]) -> Iterator[str]:
    """One line of a Markdown table per key."""
    for name, key in schema["properties"].items():
        required = "required" if name in schema.get("required", []) else ""
        default = f"`{key['default']}`" if "default" in key else required
        yield f"| `{name}` | {allowed(key)} | {default} | {key.get('description', '')} |"


def main() -> None:
    """Print the whole page."""
    properties = yaml.safe_load(SCHEMA.read_text())["properties"]
    sections = {
        "run": properties["run"],
        "embeddings.NAME": properties["embeddings"]["additionalProperties"],
        "models.NAME": properties["models"]["additionalProperties"],
        "datasets.NAME": properties["datasets"]["additionalProperties"],
        "archives.NAME": properties["archives"]["additionalProperties"],
    }
    print(HEADER)
    for title, schema in sections.items():
        print(f"## {title}\n\n| key | values | default | meaning |\n|---|---|---|---|")
        print("\n".join(rows(schema)) + "\n")


if __name__ == "__main__":
    main()
