"""Where and how the backbone runs: choices that move scores by rounding at most, so they are no settings of a model."""

from collections.abc import Mapping
from dataclasses import dataclass

from dinodp.backbones import Backbone, load_backbone
from dinodp.embeddings.embedder import Embedder
from dinodp.scans.detecting.settings import Settings


@dataclass(frozen=True)
class Machine:
    """``device``, ``engine`` and ``dtype`` as `load_backbone` has them, ``batch_size`` as `Embedder`.

    An ``engine`` of None is PyTorch for a fit; for a fitted model it is that of its fit, in the same dtype.
    """

    device: str = "auto"
    batch_size: int | None = None
    engine: str | None = None
    dtype: str | None = None

    def load(self, place: str, revision: str | None, settings: Settings, *, download: bool = True) -> Backbone:
        """The backbone of a fit at ``place``. Raises InputError as `load_backbone` does."""
        return load_backbone(
            place,
            revision=revision,
            resolution=settings.resolution,
            layers=settings.layers,
            device=self.device,
            dtype=self.dtype,
            engine=self.engine,
            download=download,
        )

    def embedder(self, backbone: Backbone) -> Embedder:
        """What embeds with it."""
        return Embedder(backbone, self.batch_size)

    def as_in(self, provenance: Mapping[str, str]) -> "Machine":
        """With the engine and dtype of a fit where nothing else is asked for."""
        if self.engine is not None or "engine" not in provenance:
            return self
        return Machine(self.device, self.batch_size, provenance["engine"], self.dtype or provenance["dtype"])
