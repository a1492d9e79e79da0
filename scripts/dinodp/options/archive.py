"""Where a data set can be had."""

from typing import Self

from pydantic import field_validator, model_validator

from dinodp.jobs.files import user_path
from dinodp.options.base import Options, option


class ArchiveOptions(Options):
    """Where data sets can be had."""

    url: str | None = option(None, "Address of a zip or tar archive.")
    sha256: str | None = option(
        None, "Checksum of the packed file; absent: only logged.", pattern="^[0-9a-f]{64}$"
    )
    size: int | None = option(None, "Size of the packed file, where the server does not say.", unit="bytes", ge=1)
    file: str = option(..., "Where the packed file is kept; one that lies there is not fetched again.")
    instructions: str | None = option(
        None, "What to download, from where and under which licence, where no program may."
    )

    @field_validator("file")
    @classmethod
    def _expand(cls, file: str) -> str:
        return str(user_path(file)) if file.startswith("~") else file

    @model_validator(mode="after")
    def _can_be_had(self) -> Self:
        if self.url is None and self.instructions is None:
            raise ValueError("it needs a url, or instructions where no program may download it")
        return self
