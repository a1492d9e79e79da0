"""Options of models of K parts that are fitted in passes over the training images."""

from dinodp.families.base import ModelOptions
from dinodp.options.base import Options, option


class EpochOptions(ModelOptions):
    """K parts, fitted in several passes."""

    components: int = option(500, "Truncation level K of the Dirichlet process; number of parts of the others.", ge=2)
    epochs: int = option(40, "Passes over the training images; iterations where all are fitted at once.", ge=1)


class BatchOptions(Options):
    """Passes in mini-batches."""

    images_per_batch: int = option(12, "Images per step.", ge=1)
