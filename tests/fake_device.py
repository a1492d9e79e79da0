"""An accelerator that is none: tensors that say they lie on it, computed on the CPU, with the rules of a real one.

Tensors of two devices do not meet, a float64 is refused where the device has none, and NumPy sees none of its tensors.
A tensor is on the device if its storage is marked, so that views and parameters are where their memory is. What runs
here has run through the code for that device, not through its kernels: it shows no speed, no rounding and no race.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter, tree_map

MAY_MEET = ("aten.copy_", "aten.index", "aten._index_put", "aten.lift_fresh")  # as in torch
CPU = torch.device("cpu")
DEVICE_OF = torch.Tensor.device.fget if isinstance(torch.Tensor.device, property) else torch.Tensor.device.__get__


class Copy(NamedTuple):
    """A copy to the device: without waiting for it or not, and whether from pinned memory."""

    non_blocking: bool
    pinned: bool


class Fake:
    """A faked device, and the ``copies`` to it."""

    def __init__(self, kind, float64):
        self.device, self.float64 = torch.device(kind, 0), float64
        self.copies = []

    def has(self, tensor):
        """Whether a tensor is here."""
        return getattr(tensor.untyped_storage(), "marked", None) is self

    def take(self, tensor):
        """Mark a tensor as one of the device."""
        if tensor.dtype == torch.float64 and not self.float64:
            raise TypeError(f"Cannot make a float64 tensor on {self.device}, which has none")
        tensor.untyped_storage().marked = self
        return tensor

    def names(self, device):
        """Whether ``device`` is this one."""
        return isinstance(device, torch.device | str) and torch.device(device).type == self.device.type


class _Rules(TorchDispatchMode):
    def __init__(self, fake):
        super().__init__()
        self.fake = fake

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, fake = kwargs or {}, self.fake
        tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, torch.Tensor)]
        here = [fake.has(tensor) for tensor in tensors]
        if any(here) and not all(here) and not str(func).startswith(MAY_MEET):
            others = [tensor for tensor, is_here in zip(tensors, here, strict=True) if not is_here]
            in_place = str(func).split(".")[1].endswith("_") and not fake.has(args[0])
            if in_place or any(tensor.ndim for tensor in others):  # a number of the CPU may meet any tensor
                raise RuntimeError(f"Expected all tensors to be on the same device, not {fake.device} and cpu: {func}")
        asked = fake.names(kwargs.get("device"))
        pinned = bool(kwargs.get("pin_memory"))
        instead = ({"device": CPU} if asked else {}) | ({"pin_memory": False} if pinned else {})
        found = func(*args, **{**kwargs, **instead})
        if pinned:
            found.untyped_storage().pinned = True
        first = fake.has(args[0]) if str(func).startswith(MAY_MEET) and tensors else any(here)
        if first or asked:
            tree_map(lambda value: fake.take(value) if isinstance(value, torch.Tensor) else value, found)
        return found


@contextmanager
def faked(monkeypatch, kind, *, float64):
    """A device of a ``kind`` (cuda, mps, xpu) for the block, in all threads of pools; yields the `Fake`."""
    fake = Fake(kind, float64)
    submit, to, cpu, numpy = ThreadPoolExecutor.submit, torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.numpy

    def submitted(self, function, *args, **kwargs):
        def run():
            with _Rules(fake):
                return function(*args, **kwargs)

        return submit(self, run)

    def moved(self, *args, **kwargs):
        target = [value for value in (*args, kwargs.get("device")) if isinstance(value, torch.device | str)]
        if args and isinstance(args[0], torch.Tensor):
            target = [args[0].device]
        onto = fake.names(target[0]) if target else fake.has(self)
        args = [CPU if isinstance(value, torch.device | str) else value for value in args]
        kwargs = {**kwargs, **({"device": CPU} if "device" in kwargs else {})}
        if onto == fake.has(self):
            return to(self, *args, **kwargs)
        if onto:
            fake.copies.append(Copy(bool(kwargs.get("non_blocking")), self.is_pinned()))
        with _disable_current_modes():
            found = to(self, *args, **{**kwargs, "copy": True})
            return fake.take(found) if onto else found

    def as_numpy(self, *args, **kwargs):
        if fake.has(self):
            raise TypeError(f"can't convert a {fake.device} tensor to numpy")
        return numpy(self, *args, **kwargs)

    patched = {
        "device": property(lambda self: fake.device if fake.has(self) else DEVICE_OF(self)),
        "to": moved,
        "cpu": lambda self: moved(self, CPU) if fake.has(self) else cpu(self),
        "numpy": as_numpy,
        "is_pinned": lambda self: getattr(self.untyped_storage(), "pinned", False),
    }
    with monkeypatch.context() as patch:
        patch.setattr(ThreadPoolExecutor, "submit", submitted)
        for name, value in patched.items():
            patch.setattr(torch.Tensor, name, value, raising=False)
        if kind == "mps":
            patch.setattr(torch.backends.mps, "is_available", lambda: True)
        else:
            for name, value in _module(float64).items():
                patch.setattr(getattr(torch, kind), name, value)
        with _Rules(fake):
            yield fake


def _module(float64):
    """What torch says of one device; its build for the CPU refuses to begin, and counts none."""
    return {
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "set_device": lambda index: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda: (2**30, 2**31),
        "max_memory_allocated": lambda: 3 * 2**20,
        "reset_peak_memory_stats": lambda: None,
        "get_device_name": lambda: "none",
        "get_device_properties": lambda device: SimpleNamespace(has_fp64=float64),
    }
