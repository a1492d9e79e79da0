"""``dinodp export``: a fitted model as an ONNX graph."""

import argparse

from dinodp.commands.arguments import Commands, add_command, file_lock, require_file, say
from dinodp.jobs.files import user_path
from dinodp.jobs.logs import configure_logging

DESCRIPTION = """\
Write backbone and scorer as one ONNX graph, for places without PyTorch, and check its maps against PyTorch's:
in onnxruntime and, where it is installed, in OpenVINO.

  input   pixels        float32 [batch, 3, H, W], RGB from 0 to 255, as large as the backbone sees them
  output  map           float32 [batch, H, W], the anomaly map
          patch_scores  float32 [batch, rows, columns]

The batch is dynamic, H and W are fixed. Needs pip install -e ".[onnx]" in the checkout."""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "export", run, "write a fitted model as an ONNX graph", DESCRIPTION)
    parser.add_argument("model", type=user_path, metavar="MODEL", help="a model file that `dinodp fit` wrote")
    parser.add_argument("--onnx", type=user_path, required=True, metavar="FILE", help="the graph to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"),
        help="of the pictures, multiples of the patch size (default: the square of the model's resolution)",
    )  # fmt: skip
    parser.add_argument("--backbone", metavar="DIR", help="where the backbone's weights are now, if they have moved")


def run(options: argparse.Namespace) -> int:
    """Export, and say what was written."""
    configure_logging()
    require_file(options.onnx, options.overwrite)
    with file_lock(options.onnx):
        return _export(options)


def _export(options: argparse.Namespace) -> int:
    from dinodp.scans.detecting.machine import Machine  # torch takes seconds to import: not for --help
    from dinodp.scans.detecting.model_file import load_detector
    from dinodp.scans.detecting.onnx_export import OPSET, export_onnx

    traced = Machine("cpu", engine="torch", dtype="float32")
    detector = load_detector(options.model, backbone=options.backbone, machine=traced)
    size = options.size and (options.size[0], options.size[1])
    graph = export_onnx(detector, options.onnx, size)
    say(
        f"{graph.path}: opset {OPSET}, pixels [batch, 3, {graph.size[0]}, {graph.size[1]}] -> map [batch, "
        f"{graph.size[0]}, {graph.size[1]}], batch dynamic.",
        *(
            f"Largest difference from PyTorch in {engine}: {difference.absolute:.2g} in scores, "
            f"{difference.relative:.2g} of their range."
            for engine, difference in graph.differences.items()
        ),
    )
    return 0
