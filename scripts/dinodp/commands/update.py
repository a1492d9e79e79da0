"""``dinodp update``: go on with the fit of a model."""

import argparse

from tabulate import tabulate

from dinodp.commands.arguments import (
    SCANS,
    Commands,
    add_command,
    add_machine,
    add_pattern,
    file_lock,
    require_file,
    say,
)
from dinodp.jobs.files import user_path
from dinodp.jobs.logs import configure_logging
from dinodp.scans.naming import card_of, require_name

DESCRIPTION = """\
Go on with the fit of a model with more healthy scans, and write the result as a new model. Part of the new scans is
held out: on them the thresholds are calibrated anew. The old thresholds are kept beside the new, and how far they moved
is said.

Mixtures of online EM (dpmm, gaussian_mixture) and memory banks can go on; others are to be fitted again."""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "update", run, "go on with the fit of a model with more healthy scans", DESCRIPTION)
    parser.add_argument("model", type=user_path, metavar="MODEL", help="a model file that `dinodp fit` wrote")
    parser.add_argument("healthy", type=user_path, nargs="+", metavar="HEALTHY", help=f"new healthy scans: {SCANS}")
    parser.add_argument("--out", type=user_path, required=True, metavar="MODEL", help="the model file to write (.h5)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a model file that exists, be it the old model itself"
    )
    add_pattern(parser)
    parser.add_argument("--backbone", metavar="DIR", help="where the backbone's weights are now, if they have moved")
    add_machine(parser)


def run(options: argparse.Namespace) -> int:
    """Update, write model and card, and say how far the thresholds moved."""
    configure_logging()
    require_name(options.out)
    require_file(card_of(options.out), overwrite=True)
    with file_lock(options.out):
        require_file(options.out, options.overwrite)
        return _update(options)


def _update(options: argparse.Namespace) -> int:
    from dinodp import store
    from dinodp.scans.detecting.fitting import unread_scans
    from dinodp.scans.detecting.model_file import copied_weights, load_detector, save_detector
    from dinodp.scans.detecting.updating import moved, update_detector
    from dinodp.scans.reading.folder import find_all
    from dinodp.scans.writing.card import write_card  # torch takes seconds to import: not for --help

    detector = load_detector(
        options.model, backbone=options.backbone, device=options.device, batch_size=options.batch_size
    )
    scans = find_all(options.healthy, options.pattern, with_copies=False)
    unread = unread_scans(scans, detector.scorer.settings)
    updated = update_detector(detector, unread, store.digest_of(options.model))
    if detector.weights is not None and options.backbone is None and options.out != options.model:
        updated = copied_weights(updated, options.model, options.out)
    save_detector(options.out, updated)
    card = write_card(options.out, updated)
    print(tabulate(moved(updated), headers="keys", floatfmt=".4g"))
    say(f"Model: {options.out}   Model card: {card}")
    return 0
