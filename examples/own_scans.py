"""From healthy scans to anomaly maps of new ones in Python, with the five lines of docs/own_scans.md and a table.

    python examples/own_scans.py healthy/ new/ --out maps/ --pattern '*_t1.nii.gz'

A score says how far a scan lies from the healthy ones; it is no diagnosis.
"""

import argparse
import sys
from pathlib import Path

import nibabel as nib

from dinodp.commands.fit import method_of
from dinodp.errors import InputError
from dinodp.scans import AnomalyDetector
from dinodp.scans.reading.folder import find_scans


def main() -> int:
    """Fit, score, write the map of every new volume beside a model that can be used again; 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("healthy", type=Path, help="folder of healthy NIfTI volumes")
    parser.add_argument("new", type=Path, help="folder of new NIfTI volumes")
    parser.add_argument("--out", type=Path, default=Path("maps"))
    parser.add_argument("--pattern", default="*.nii*", help="of the files in both folders, only those named like this")
    parser.add_argument("--backbone", default="facebook/dinov2-small")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--resolution", type=int, default=448)
    parser.add_argument("--method", nargs="+", default=["eb_mixture"], help="family, and its options as KEY=VALUE")
    parser.add_argument("--slice-step", type=int, default=4)
    options = parser.parse_args()

    try:
        return _run(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    healthy = [path for _, path in find_scans(options.healthy, options.pattern)]
    new = find_scans(options.new, options.pattern)
    detector = AnomalyDetector(
        options.backbone,
        layers=(options.layer,),
        resolution=options.resolution,
        method=method_of(*options.method),
        slice_step=options.slice_step,
    ).fit(healthy)
    options.out.mkdir(parents=True, exist_ok=True)
    detector.save(options.out / "model.h5")
    print("scan                 score  looks")
    failed = 0
    for name, path in new:
        try:
            scored = detector.score_scan(path)
        except InputError as error:  # one scan must not cost the others theirs
            failed = 1
            print(f"{name:20} {error}")
            continue
        verdict = "like the healthy ones" if -scored.score >= detector.offset_ else "unlike the healthy ones"
        print(f"{name:20} {scored.score:.1f}  {verdict}")
        anomaly_map = scored.scan.geometry.from_stack(scored.anomaly_map)
        nib.save(nib.Nifti1Image(anomaly_map, nib.load(path).affine), options.out / f"{name}.nii.gz")
    return failed


if __name__ == "__main__":
    sys.exit(main())
