"""From healthy scans to anomaly maps of new ones in Python, with the five lines of docs/own_scans.md and a table.

    python examples/own_scans.py healthy/ new/ --out maps/ --backbone facebook/dinov2-small

A score says how far a scan lies from the healthy ones; it is no diagnosis.
"""

import argparse
from pathlib import Path

import nibabel as nib

from dinodp.scans.detector import AnomalyDetector


def main() -> None:
    """Fit, score, write the map of every new volume beside a model that can be used again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("healthy", type=Path, help="folder of healthy NIfTI volumes")
    parser.add_argument("new", type=Path, help="folder of new NIfTI volumes")
    parser.add_argument("--out", type=Path, default=Path("maps"))
    parser.add_argument("--backbone", default="facebook/dinov2-small")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--resolution", type=int, default=448)
    parser.add_argument("--components", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--slice-step", type=int, default=4)
    options = parser.parse_args()

    detector = AnomalyDetector(
        options.backbone,
        layers=(options.layer,),
        resolution=options.resolution,
        n_components=options.components,
        epochs=options.epochs,
        slice_step=options.slice_step,
    ).fit(options.healthy)
    options.out.mkdir(parents=True, exist_ok=True)
    detector.save(options.out / "model.h5")
    print("scan                 score  looks")
    for path in sorted(options.new.glob("*.nii.gz")):
        scored = detector.score_scan(path)
        verdict = "like the healthy ones" if -scored.score >= detector.offset_ else "unlike the healthy ones"
        print(f"{path.name:20} {scored.score:.1f}  {verdict}")
        anomaly_map = scored.scan.geometry.from_stack(scored.anomaly_map)
        nib.save(nib.Nifti1Image(anomaly_map, nib.load(path).affine), options.out / path.name)


if __name__ == "__main__":
    main()
