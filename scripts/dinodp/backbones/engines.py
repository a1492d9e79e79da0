"""What computes a vision transformer instead of PyTorch: OpenVINO on CPUs, an optional package."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from dinodp.errors import InputError

if TYPE_CHECKING:
    import torch

Engine = Literal["torch", "openvino"]
Dtype = Literal["float32", "float16", "bfloat16"]
ENGINES, DTYPES = (*get_args(Engine), "auto"), get_args(Dtype)
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names
BFLOAT16 = "BF16"  # among OpenVINO's capabilities of a device


def fastest_engine(device: str) -> Engine:
    """The engine that is fastest on a device at no loss: OpenVINO on a CPU where it is installed, else PyTorch.

    In float32: bfloat16 halves the time, but may cost average precision (docs/performance.md).
    """
    from dinodp.backbones.base import torch_device

    here = torch_device(device).type == "cpu" and importlib.util.find_spec("openvino") is not None
    return "openvino" if here else "torch"


def _capabilities() -> list[str]:
    import openvino

    found: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found


class OpenVinoTokens:
    """What ``tokens`` (`LayerTokens` in float32) computes, by OpenVINO on the CPU; compiled once per size of images.

    As many threads as PyTorch has when a size is first seen. Raises InputError where OpenVINO is not installed, the
    device is no CPU, or the CPU does not compute the dtype.
    """

    def __init__(self, tokens: torch.nn.Module, dtype: str, device: torch.device) -> None:
        if device.type != "cpu":
            raise InputError(f"The engine openvino computes on CPUs, not on {device}: take the engine torch.")
        if importlib.util.find_spec("openvino") is None:
            raise InputError(
                "The engine openvino needs a package that is not installed: `pip install 'dinodp[openvino]'`, or take "
                "the engine torch."
            )
        if dtype == "bfloat16" and BFLOAT16 not in _capabilities():
            raise InputError("This CPU does not compute bfloat16 (AVX512-BF16 or AMX): take the dtype float32.")
        self._tokens, self._dtype = tokens, dtype
        self._compiled: dict[tuple[int, ...], Any] = {}

    def __call__(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """[B, tokens, dim] for each block, of pixels float32 [B, 3, H, W]."""
        import torch

        size = tuple(pixel_values.shape[1:])
        if size not in self._compiled:
            self._compiled[size] = self._compile(size)
        found = self._compiled[size](pixel_values.float().numpy())
        return [torch.from_numpy(found[number]) for number in range(len(found))]

    def _compile(self, size: tuple[int, ...]) -> Any:
        import openvino
        import torch

        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
        model = _converted(self._tokens, size)
        model.reshape({0: openvino.PartialShape([-1, *size])})
        return openvino.Core().compile_model(
            model, "CPU", {"INFERENCE_PRECISION_HINT": PRECISIONS[self._dtype], **threads}
        )


def _converted(module: torch.nn.Module, size: tuple[int, ...]) -> Any:
    """An OpenVINO model of a module that takes images [B, *size] of any number.

    By the frontend itself: `openvino.convert_model` reports each conversion to its makers where that is allowed.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    with torch.inference_mode(False), torch.no_grad(), _quiet():
        example = torch.zeros(2, *size)
        module(example)  # what the module keeps, such as resized positions, must be numbers before it is traced
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        decoder = TorchFXPythonDecoder.from_exported_program(program)  # kept: the frontend does not own it
        frontend = FrontEndManager().load_by_framework("pytorch")
        return frontend.convert(frontend.load(decoder))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings about what the tracer and OpenVINO do inside.

    OpenVINO speaks by the root logger itself, which would also be given a handler by its first word.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addFilter(_is_error)  # a filter sees what is said by this logger, nothing that other loggers pass up
    root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)
        root.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
