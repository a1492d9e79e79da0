"""Several processes fit one mixture: each takes its part of every mini-batch, and the statistics are summed over all.

Sufficient statistics are sums, so the result is that of one process up to the rounding of another order of summation.
Every process holds the same parameters; the first one (rank 0) writes.
"""

from collections.abc import Sequence

import torch
from torch import distributed

Group = distributed.ProcessGroup


def join(device: str) -> None:
    """Join the group that ``torchrun`` describes in the environment: nccl between GPUs, gloo between CPUs."""
    distributed.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")


def leave() -> None:
    """Leave it, when all have come to this point."""
    distributed.barrier()
    distributed.destroy_process_group()


def current_group() -> Group | None:
    """The group that this process has joined, or None for a process on its own."""
    return distributed.group.WORLD if distributed.is_initialized() else None


def is_first(group: Group | None) -> bool:
    """Whether this process is the one that writes."""
    return group is None or distributed.get_rank(group) == 0


def own_part(images: torch.Tensor, group: Group | None) -> torch.Tensor:
    """The part of ``images`` [n] of this process: consecutive, as many as others give or take one, maybe none."""
    if group is None:
        return images
    return images.tensor_split(distributed.get_world_size(group))[distributed.get_rank(group)]


def sum_over(group: Group | None, numbers: Sequence[float], *tensors: torch.Tensor) -> list[float]:
    """Sum ``numbers`` (returned) and ``tensors`` (in place) over all processes; every one gets the same bits."""
    if group is None:
        return list(numbers)
    device = torch.device("cuda" if distributed.get_backend(group) == "nccl" else "cpu")
    scalars = torch.tensor(list(numbers), dtype=torch.float64, device=device)
    for tensor in (scalars, *tensors):
        distributed.all_reduce(tensor, group=group)
    return [float(number) for number in scalars]
