"""Several processes that train together (torchrun): what they add up."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch import distributed


def rank_and_size() -> tuple[int, int]:
    """Return the number of this process and how many there are; (0, 1) alone."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def average_(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their means over all processes, in one exchange."""
    known = list(tensors)
    _, size = rank_and_size()
    if size == 1 or not known:
        return
    flat = torch.cat([value.reshape(-1) for value in known])
    distributed.all_reduce(flat)
    flat /= size
    at = 0
    for value in known:
        value.copy_(flat[at : at + value.numel()].reshape(value.shape))
        at += value.numel()


def wait_for_all() -> None:
    """Return when every process has come here."""
    if rank_and_size()[1] > 1:
        distributed.barrier()
