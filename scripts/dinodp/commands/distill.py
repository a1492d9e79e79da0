"""``dinodp distill``: train a small network that predicts a backbone's embeddings of your normal scans."""

import argparse

from dinodp.commands.arguments import SCANS, Commands, add_command, file_lock, require_new, say
from dinodp.commands.fit import add_backbone, add_scans, settings_of, values_of
from dinodp.jobs.files import user_path
from dinodp.jobs.logs import configure_logging
from dinodp.options.distillation import DistillationOptions
from dinodp.scans.detecting.settings import Settings

DESCRIPTION = """\
Train a student: a small network that predicts what a backbone says of your healthy scans, several times faster.

Its folder is used wherever a backbone is: dinodp fit healthy/ --backbone STUDENT --out model.h5
It takes the place of its backbone for scans like these only. docs/student.md says what it costs and loses."""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "distill", run, "train a small network in place of a backbone", DESCRIPTION)
    parser.add_argument("healthy", type=user_path, nargs="+", metavar="HEALTHY", help=f"healthy scans: {SCANS}")
    parser.add_argument("--out", type=user_path, required=True, metavar="STUDENT", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a student that is there")
    add_scans(parser.add_argument_group("scans"))
    group = parser.add_argument_group("teacher and training")
    add_backbone(group)
    group.add_argument(
        "--training", nargs="+", default=[], metavar="KEY=VALUE",
        help="such as rounds=40 width=96: every key is in config/README.md, run.distillation",
    )  # fmt: skip
    group.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, mps, xpu or auto (default: auto)")
    parser.set_defaults(method=Settings().method, components=None, epochs=None)


def run(options: argparse.Namespace) -> int:
    """Train, and say what it took."""
    configure_logging()
    settings = settings_of(options)
    values = values_of(options.training, "--training")
    training = DistillationOptions.read({"seed": settings.seed, **values}, "--training")
    with file_lock(options.out):
        require_new(options.out, options.overwrite)
        return _distil(options, settings, training)


def _distil(options: argparse.Namespace, settings: Settings, training: DistillationOptions) -> int:
    from dinodp.scans.detecting.distilling import distil_scans  # torch takes seconds to import: not for --help
    from dinodp.scans.detecting.fitting import unread_scans
    from dinodp.scans.reading.folder import find_all

    scans = find_all(options.healthy, options.pattern, with_copies=False)
    spent = distil_scans(unread_scans(scans, settings), settings, training, options.out, options.device)
    say(
        f"Student: {options.out}, from {spent['images']:.0f} slices or images in {spent['cpu_seconds'] / 60:.1f} "
        f"minutes of CPU time; it leaves {spent['loss']:.0%} of the variance of its teacher's embeddings unexplained.",
        f"Use it: dinodp fit HEALTHY --backbone {options.out} --resolution {settings.resolution} --out MODEL",
    )
    return 0
