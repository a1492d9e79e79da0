"""Pages from templates."""

from pathlib import Path

import jinja2


def environment(templates: Path) -> jinja2.Environment:
    """Templates of a folder; what they show is escaped, and a name that is not given is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
