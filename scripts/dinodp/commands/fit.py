"""``dinodp fit``: learn what healthy scans look like."""

import argparse
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import yaml

from dinodp.commands.arguments import (
    SCANS,
    Commands,
    add_bids,
    add_command,
    add_machine,
    add_pattern,
    bids_of,
    file_lock,
    machine_of,
    number_or_name,
    require_file,
    require_new,
    say,
    subject_pattern_of,
)
from dinodp.datasets.volumes import AXES
from dinodp.errors import InputError
from dinodp.jobs.files import user_path
from dinodp.jobs.logs import configure_logging
from dinodp.scans.detecting.method import METHODS, entry_of
from dinodp.scans.detecting.settings import Settings
from dinodp.scans.detecting.weights import licence_of
from dinodp.scans.naming import card_of, require_name, weights_of

DEFAULT = Settings()
SHORT = ("components", "epochs")  # options of many methods, with a name of their own on the command line
DESCRIPTION = """\
Learn from healthy scans what is usual, and write one model file and its model card.

Part of the scans (--held-out) is not learnt from: on them the thresholds are calibrated that 10, 5 and 1 % of healthy
voxels exceed. All scans must be of one kind: one modality, volumes or images, grey or colour."""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "fit", run, "learn what healthy scans look like", DESCRIPTION)
    parser.add_argument("healthy", type=user_path, nargs="+", metavar="HEALTHY", help=f"healthy scans: {SCANS}")
    parser.add_argument("--out", type=user_path, required=True, metavar="MODEL", help="the model file to write (.h5)")
    parser.add_argument("--overwrite", action="store_true", help="replace a model file that exists")
    add_scans(parser.add_argument_group("scans"))
    group = parser.add_argument_group("model")
    add_backbone(group)
    _add_model(group)
    add_machine(parser)


def _number(
    group: argparse._ArgumentGroup, option: str, setting: str, metavar: str, text: str, kind: type[float] = int
) -> None:
    """An option that is a number in the settings."""
    group.add_argument(
        option, dest=setting, type=kind, default=getattr(DEFAULT, setting), metavar=metavar,
        help=f"{text} (default: %(default)s)",
    )  # fmt: skip


def add_scans(group: argparse._ArgumentGroup) -> None:
    """Which scans there are, and how they are sliced."""
    add_pattern(group)
    add_bids(group)
    group.add_argument("--axis", choices=AXES, default=DEFAULT.axis, help="how volumes are sliced (default: axial)")
    group.add_argument("--index", type=int, metavar="N", help="which volume of 4D files, from 0")
    group.add_argument(
        "--background", type=number_or_name(("auto", "none")), default=DEFAULT.background, metavar="VALUE",
        help="value of voxels that show no body; none: there are none; auto (default): the corners' value, or what is "
        "below Otsu's threshold; images have none",
    )  # fmt: skip
    group.add_argument(
        "--window", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="values that become black and white, such as Hounsfield units (default: percentiles of each volume)",
    )  # fmt: skip
    _number(group, "--slice-step", "slice_step", "N", "learn from every N-th slice")
    smallest = "slices with less foreground than this share of the field of view are left out"
    _number(group, "--min-foreground", "min_foreground", "SHARE", smallest, float)
    _number(group, "--held-out", "held_out", "SHARE", "share of the subjects kept for calibration", float)
    group.add_argument(
        "--subject-pattern", metavar="REGEX",
        help="names the subject within a scan's name, such as '(?P<subject>sub-[0-9]+)' (default: a scan is a subject)",
    )  # fmt: skip


def add_backbone(group: argparse._ArgumentGroup) -> None:
    """Which backbone, and the seed."""
    group.add_argument(
        "--backbone", default=DEFAULT.backbone, metavar="NAME",
        help="name on the Hugging Face hub, local folder in its format, or classical (no weights needed; a floor) "
        "(default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--revision", metavar="COMMIT", help="of the backbone on the hub (default: pinned)")
    group.add_argument(
        "--layers", type=int, nargs="+", default=DEFAULT.layers, metavar="N",
        help="blocks of the backbone that are read, from 1, or from the end with -1 the last (default: -1)",
    )  # fmt: skip
    _number(group, "--resolution", "resolution", "PIXELS", "short side of what the backbone sees")
    _number(group, "--seed", "seed", "N", "of all random choices")


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--include-weights", action="store_true",
        help="copy the backbone's weights into a folder beside the model, so that prediction needs no network; their "
        "licence must allow it",
    )  # fmt: skip
    group.add_argument("--licence", metavar="NAME", help="of the weights that are included, such as Apache-2.0")
    group.add_argument(
        "--method", nargs="+", default=DEFAULT.method, metavar=("NAME", "KEY=VALUE"),
        help=f"a family of models ({', '.join(METHODS)}) or a model of config/catalog.yaml, and options of it, such as "
        "components=100 epochs=20: every one is in config/README.md (default: %(default)s)",
    )  # fmt: skip
    for key in SHORT:
        group.add_argument(f"--{key}", type=int, metavar="N", help=f"the same as the option {key}=N of the method")
    group.add_argument("--score", metavar="NAME", help="how the distance is measured (default: the method's first)")


def run(options: argparse.Namespace) -> int:
    """Fit, and write model and card."""
    configure_logging()
    require_name(options.out)
    require_file(options.out, options.overwrite)
    require_file(card_of(options.out), overwrite=True)
    settings = settings_of(options)
    licence = licence_of(settings.backbone, options.licence) if options.include_weights else None
    if licence is not None:
        require_new(weights_of(options.out), options.overwrite)
    with file_lock(options.out):
        require_file(options.out, options.overwrite)  # another process may just have written it
        return _fit(options, settings, licence)


def _fit(options: argparse.Namespace, settings: Settings, licence: str | None) -> int:
    from dinodp.scans.detecting.fitting import fit_detector, unread_scans
    from dinodp.scans.detecting.model_file import save_detector, with_weights
    from dinodp.scans.reading.folder import find_all
    from dinodp.scans.writing.card import write_card  # torch takes seconds to import: not for --help

    scans = find_all(options.healthy, options.pattern, with_copies=False, bids=bids_of(options))
    detector = fit_detector(unread_scans(scans, settings), settings, machine_of(options))
    if licence is not None:
        detector = with_weights(options.out, detector, licence)
    save_detector(options.out, detector)
    card = write_card(options.out, detector)
    say(f"Model: {options.out}   Model card: {card}")
    return 0


def settings_of(options: argparse.Namespace) -> Settings:
    """Settings of a parsed command line."""
    values = {field.name: getattr(options, field.name) for field in fields(Settings) if field.name in options}
    window = options.window and (options.window[0], options.window[1])
    named = [options.method] if isinstance(options.method, str) else options.method
    method = method_of(*named, *(f"{key}={value}" for key in SHORT if (value := getattr(options, key)) is not None))
    given = {"layers": tuple(options.layers), "window": window, "method": method}
    return Settings(**{**values, **given, "subject_pattern": subject_pattern_of(options)})


def method_of(name: str, *options: str) -> str | dict[str, Any]:
    """A method, and options of it as KEY=VALUE. Raises InputError for other texts."""
    entry = {**entry_of(name), **values_of(options, f"--method {name}")}
    return entry if options else name


def values_of(options: Iterable[str], where: str) -> dict[str, Any]:
    """Options as KEY=VALUE. Raises InputError, beginning with ``where``, for other texts."""
    values = {}
    for text in options:
        key, sign, value = text.partition("=")
        if not sign:
            raise InputError(f"{where}: {text!r} is no option of the form KEY=VALUE.")
        values[key] = yaml.safe_load(value)
    return values
