"""``dinodp predict``: anomaly maps of new scans."""

import argparse
from dataclasses import fields

from dinodp.commands.arguments import (
    SCANS,
    Commands,
    add_command,
    add_machine,
    add_pattern,
    folder_lock,
    number_or_name,
    require_new,
    require_writable,
    say,
)
from dinodp.datasets.subjects import subjects_of
from dinodp.errors import InputError, told
from dinodp.jobs.files import user_path
from dinodp.jobs.logs import configure_logging
from dinodp.options.protocol import FALSE_POSITIVE_RATES
from dinodp.scans.writing.dicom_objects import require_highdicom

DESCRIPTION = """\
Score new scans with a fitted model, and write into a folder:

  maps/         anomaly maps: NIfTI with the scan's affine and shape, or float32 TIFF of an image
  masks/        what exceeds the threshold (--masks)
  tails/        share of held-out healthy voxels that score as high, 0 to 1 (--calibrated)
  dicom/        parametric map and segmentation of a DICOM series (--dicom)
  overlays/     the slices with the highest scores, map above scan (--overlays)
  scans.csv     score of each scan, volume above the threshold, failures
  slices.csv    score of each slice of a volume
  regions.csv   the largest regions above the threshold: centroid in mm, volume in ml
  gallery.html  all of it on one page

A run that was stopped goes on when the same command is given again: what is done is not done again.
A scan that cannot be scored does not stop the others; it is listed at the end, and the exit status is 1.
A score says how far a scan lies from the healthy ones; it is no diagnosis."""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "predict", run, "make anomaly maps of new scans", DESCRIPTION)
    parser.add_argument("new", type=user_path, nargs="+", metavar="NEW", help=f"scans: {SCANS}")
    parser.add_argument("--model", type=user_path, required=True, help="a model file that `dinodp fit` wrote")
    parser.add_argument("--out", type=user_path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that holds something already")
    add_pattern(parser)
    parser.add_argument(
        "--threshold", type=number_or_name(tuple(FALSE_POSITIVE_RATES)), default="fpr01", metavar="NAME",
        help="fpr10, fpr05 or fpr01 (10, 5 or 1 %% of healthy voxels exceed it), or a score (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--masks", action="store_true", help="write masks of what exceeds the threshold")
    parser.add_argument(
        "--calibrated", action="store_true",
        help="write maps of tail probabilities: the share of held-out healthy voxels that score as high, 0 to 1",
    )  # fmt: skip
    parser.add_argument(
        "--dicom", action="store_true",
        help="of DICOM series, also write a parametric map and a segmentation that refer to their images (needs "
        "highdicom)",
    )  # fmt: skip
    parser.add_argument("--overlays", action="store_true", help="write pictures of the highest slices")
    parser.add_argument(
        "--image-format", choices=("tiff", "png"), default="tiff",
        help="maps of images: float32 TIFF of the scores, or 16-bit PNG, in which high scores are clipped (default: "
        "%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--regions", dest="n_regions", type=int, default=5, metavar="N",
        help="list the N largest regions of each scan (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--slice-step", type=int, default=1, metavar="N",
        help="score every N-th slice and interpolate between them (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true", help="also score scans whose values, spacing or size do not fit the model"
    )
    parser.add_argument(
        "--subject-pattern", metavar="REGEX",
        help="as in `dinodp fit`: the gallery shows a scan beside the one before it of the same person",
    )  # fmt: skip
    parser.add_argument("--backbone", metavar="DIR", help="where the backbone's weights are now, if they have moved")
    add_machine(parser)


def run(options: argparse.Namespace) -> int:
    """Predict; return 1 when a scan failed."""
    configure_logging()
    if not options.out.is_dir():
        require_new(options.out, options.overwrite)
    require_writable(options.out)
    if options.dicom:
        require_highdicom()
    with folder_lock(options.out):
        return _predict(options)


def _predict(options: argparse.Namespace) -> int:
    from dinodp.scans.detecting.model_file import load_detector  # torch takes seconds to import: not for --help
    from dinodp.scans.reading.folder import find_all
    from dinodp.scans.writing.prediction import PredictionOptions, Result, predict_scans
    from dinodp.scans.writing.summary import remove_earlier, write_summary
    from dinodp.scans.writing.unfinished import Progress, discard, job_of, unfinished_job

    chosen = PredictionOptions(**{item.name: getattr(options, item.name) for item in fields(PredictionOptions)})
    job, earlier = job_of(options.model, chosen), unfinished_job(options.out)
    if options.overwrite or earlier is None:
        require_new(options.out, options.overwrite)
    elif earlier != job:
        raise InputError(
            f"{options.out} holds an unfinished prediction with another model or other options: run that one again, "
            "which goes on, or add --overwrite."
        )
    scans = find_all(options.new, options.pattern)
    subjects_of([name for name, _ in scans], options.subject_pattern)  # a pattern that fits none is told now
    detector = load_detector(
        options.model, backbone=options.backbone, device=options.device, batch_size=options.batch_size
    )
    if options.overwrite:
        remove_earlier(options.out)
        discard(options.out)
    kept, results = Progress(options.out, job, [name for name, _ in scans]), list[Result]()
    try:
        results.extend(predict_scans(scans, detector, options.out, chosen, kept))
    finally:
        if results:
            with told(f"The tables of {options.out} cannot be written", place=options.out):
                write_summary(options.out, results, detector, chosen, options.model.name)
        if len(results) == len(scans):
            kept.finish()
        else:
            kept.stop()
    failed = [item for item in results if item.failed]
    say(f"{len(results) - len(failed)} of {len(results)} scans scored: {options.out / 'gallery.html'}")
    if failed:
        say("Not scored:", *(f"  {item.message}" for item in failed))
    return 1 if failed else 0
