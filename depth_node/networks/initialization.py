"""Building a network without drawing its weights, for when they are loaded right after."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch import nn
from torch.overrides import TorchFunctionMode

_DRAWING = frozenset(
    {
        'normal_',
        'uniform_',
        'kaiming_normal_',
        'kaiming_uniform_',
        'xavier_normal_',
        'xavier_uniform_',
        'orthogonal_',
    }
)


class WithoutDrawing(TorchFunctionMode):
    """Inside ``with WithoutDrawing():`` random fills leave memory as it is, which costs nothing.

    Memory that nobody writes to is never really taken; constants are filled as always.  Networks
    must not use ``nn.init.trunc_normal_``: it draws until all numbers lie within its bounds, which
    is never, here; at its default bounds of -2 and 2 it is a plain normal draw anyway.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the tensor that a random fill was called on, untouched."""
        named = dict(kwargs or {})
        if getattr(func, '__name__', '') in _DRAWING:
            return args[0] if args else named['tensor']
        return func(*args, **named)


def adopt(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network its weights without copying them.

    :param network: float32 network; its own tensors are let go.
    :param state: every key of the network; other float types become float32.
    """
    wanted = network.state_dict()
    typed = {key: value.to(wanted[key].dtype) for key, value in state.items()}
    trains = {key: value.requires_grad for key, value in network.named_parameters()}
    network.load_state_dict(typed, assign=True)
    for key, value in network.named_parameters():
        value.requires_grad_(trains[key])
