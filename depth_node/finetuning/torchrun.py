"""A run in several processes that torchrun has started: the first leads, the others train along.

The first process looks through the recordings, caches, exports, judges and reports; the others
wait, open what it has cached, and share every batch of the training.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

_LONGEST_WAIT = timedelta(days=7)
"""The others wait while the first caches, which for many recordings takes hours."""


@contextmanager
def process_group() -> Iterator[int]:
    """Join the processes that torchrun has started; alone where there are none.

    :returns: number of this process; 0 leads.
    """
    if int(os.environ.get('WORLD_SIZE', '1')) == 1:
        yield 0
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', '0')))
    # gloo as well: what the first process tells the others are no tensors of a GPU
    backend = 'cpu:gloo,cuda:nccl' if has_gpu else 'gloo'
    distributed.init_process_group(backend, timeout=_LONGEST_WAIT)
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


def tell(value: bool) -> None:
    """Let the first process tell the others something; does nothing alone."""
    if distributed.is_initialized():
        distributed.broadcast(torch.tensor([int(value)]), 0)


def hear() -> bool:
    """Wait for what the first process tells."""
    heard = torch.zeros(1, dtype=torch.int64)
    distributed.broadcast(heard, 0)
    return bool(heard.item())
