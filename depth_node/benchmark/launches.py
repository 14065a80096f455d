"""How many operations one image takes: what a GPU at batch 1 waits for, counted without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


def launches(network: nn.Module, image: Tensor) -> int:
    """Return the operators that PyTorch runs for an image, views of memory not counted.

    :param network: module for inference.
    :param image: its input; what is counted does not depend on its values.
    """
    # inference mode would hide the parts of composite operators
    with torch.no_grad(), _Counting() as counting:
        network(image)
    return counting.total


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **dict(kwargs or {}))
        is_view = getattr(func, 'is_view', False)
        self.total += isinstance(result, (Tensor, tuple, list)) and not is_view
        return result
