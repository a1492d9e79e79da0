"""What a model file, its card and the folder of its weights are called."""

from pathlib import Path

from dinodp.errors import InputError

MODEL_SUFFIX = ".h5"


def require_name(model: Path) -> None:
    """Raise InputError unless a model file ends in .h5, so that its card has another name."""
    if model.suffix != MODEL_SUFFIX:
        raise InputError(f"A model file ends in {MODEL_SUFFIX}, which {model} does not.")


def card_of(model: Path) -> Path:
    """The model card beside a model file: ``model.h5`` -> ``model.card.md``."""
    return model.with_suffix(".card.md")


def weights_of(model: Path) -> Path:
    """The folder of weights beside a model file: ``model.h5`` -> ``model.weights``."""
    return model.with_suffix(".weights")
