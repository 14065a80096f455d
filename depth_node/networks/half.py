"""A module for inference -> the same in float16, with float32 where float16 is not enough.

float16 ends at 65504 and has 11 bits.  Images, weights and features fit; what does not:

* the last convolution and what follows it: rounded logits show in the result;
* norms and sums over many numbers, and what is made of them in modules that say so by being
  :class:`KeepsFloat32`;
* normalisations, means and softmax in a graph.  PyTorch's own float16 kernels add in float32
  there; an engine that reads a graph computes in the types that the graph names.

The casts are put in while the module runs, so that the same module runs on any device and is
exported with its casts by :func:`.export.export_onnx`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from depth_node.errors import ModelError
from depth_node.errors import quoted

_EXACT = torch.float64
_LARGEST = torch.finfo(torch.float16).max

_SQUARING: frozenset[Any] = frozenset(
    (torch.norm, Tensor.norm, torch.linalg.vector_norm, F.normalize)
)
"""Functions whose squares, or sums of squares, can leave the range of float16."""

_IN_GRAPHS: frozenset[Any] = frozenset(
    (
        torch.sum,
        Tensor.sum,
        torch.cumsum,
        Tensor.cumsum,
        torch.mean,
        Tensor.mean,
        torch.var_mean,
        torch.softmax,
        Tensor.softmax,
        F.softmax,
        F.layer_norm,
        F.group_norm,
        F.adaptive_avg_pool2d,
    )
)
"""Functions whose kernels in PyTorch compute in float32 inside, and those of an engine may not."""

_MULTIPLYING: frozenset[Any] = frozenset(
    (
        torch.conv2d,
        F.conv2d,
        torch.conv_transpose2d,
        F.conv_transpose2d,
        F.linear,
        F.scaled_dot_product_attention,
        torch.matmul,
        Tensor.matmul,
        Tensor.__matmul__,
    )
)
"""Functions that a GPU sums in float32 and rounds once; a CPU does so here, and far faster than
PyTorch's own way there."""


class KeepsFloat32(nn.Module):
    """A module that :func:`halved` leaves in float32, weights and all.

    Its inputs are cast to float32.
    """

    returns_float32 = False
    """Whether its result stays float32, because nothing but elementwise steps, resizes and modules
    of this kind lie between it and the output; otherwise it is cast to float16."""


def halved(network: nn.Module) -> nn.Module:
    """Return a module that computes in float16 what a module for inference computes.

    :param network: float32 module in evaluation mode from one tensor to one tensor, such as
        :func:`.rewrites.linearized` returns; it is not changed.
    :returns: module with float32 input and output; what stays float32 shares its weights with
        ``network``.
    :raises ModelError: for a weight that float16 cannot hold.
    """
    memo: dict[int, object] = {
        id(value): nn.Parameter(value.detach(), requires_grad=False)
        for value in network.parameters()
    }
    memo.update({id(value): value for value in network.buffers()})
    # a list, so that the module itself can be replaced as its parts are
    made = nn.ModuleList([copy.deepcopy(network, memo)])
    with torch.no_grad():
        _convert(made, {}, '')
    return Halved(made[0]).eval()


class Halved(nn.Module):
    """A module in float16 between float32 tensors."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, image: Tensor) -> Tensor:
        """Map a float32 image to the float32 output."""
        with _Casting():
            return self.body(image.half()).float()


class InFloat32(nn.Module):
    """A module in float32 among others in float16.

    :param stays: whether the result stays float32.
    """

    def __init__(self, module: nn.Module, *, stays: bool) -> None:
        super().__init__()
        self.module = module
        self.stays = stays

    def forward(self, *inputs: Tensor) -> Tensor:
        """Call the module."""
        result = self.module(*(value.float() for value in inputs))
        return result if self.stays else result.half()


class Affine(nn.Module):
    """A batch normalisation that no convolution could take in: one factor and one summand.

    Its variances, which may be anything, are not rounded.
    """

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        gain = norm.weight.to(_EXACT) / (norm.running_var.to(_EXACT) + norm.eps).sqrt()
        shift = norm.bias.to(_EXACT) - gain * norm.running_mean.to(_EXACT)
        shape = (-1, 1, 1) if isinstance(norm, nn.BatchNorm2d) else (-1,)
        self.register_buffer('gain', gain.to(norm.weight).reshape(shape))
        self.register_buffer('shift', shift.to(norm.weight).reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape, (B, C, H, W) or (B, C)."""
        return x * self.gain + self.shift


def _convert(module: nn.Module, done: dict[nn.Module, nn.Module], path: str) -> None:
    """Bring a module to float16 in place, all but the parts that stay float32.

    :param done: what has become of the modules that were met already.
    """
    for name, child in list(module.named_children()):
        if child not in done:
            done[child] = _converted(child, done, f'{path}.{name}')
        # the names of a list are numbers
        setattr(module, name, done[child])
    for group in (module._parameters, module._buffers):
        for name, value in list(group.items()):
            if value is not None and value.is_floating_point():
                half = _half(value, f'{path}.{name}')
                group[name] = half if group is module._buffers else _frozen(half)


def _converted(child: nn.Module, done: dict[nn.Module, nn.Module], path: str) -> nn.Module:
    if isinstance(child, KeepsFloat32):
        return InFloat32(child, stays=child.returns_float32)
    # a head: the disparity, depth or inverse depth before its last activation
    if isinstance(child, nn.Conv2d) and child.out_channels == 1:
        return InFloat32(child, stays=True)
    if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
        child = Affine(child)
    _convert(child, done, path)
    return child


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def _half(value: Tensor, path: str) -> Tensor:
    half = value.half()
    if not torch.isfinite(half).all():
        raise ModelError(
            'float16',
            f'{float(value.abs().max()):g} in {quoted(path.split(".", 2)[-1])}',
            f'numbers up to {_LARGEST:g}',
            'This network runs in float32 only.',
        )
    return half


class _Casting(TorchFunctionMode):
    """Casts around the functions that need it, where they are given float16."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function, in float32 if need be."""
        named = dict(kwargs or {})
        first = args[0] if args else next(iter(named.values()), None)
        if not isinstance(first, Tensor) or first.dtype != torch.float16:
            return func(*args, **named)
        is_graph = torch.compiler.is_exporting()
        if is_graph and func is F.scaled_dot_product_attention:
            return _attention(*args, **named)
        others = _IN_GRAPHS if is_graph else _MULTIPLYING if first.is_cpu else frozenset()
        if func not in _SQUARING and func not in others:
            return func(*args, **named)
        wide = {key: _wide(value) for key, value in named.items()}
        return _narrow(func(*map(_wide, args), **wide))


def _wide(value: Any) -> Any:
    is_half = isinstance(value, Tensor) and value.dtype == torch.float16
    return value.float() if is_half else value


def _narrow(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_narrow(part) for part in result)
    return result.half()


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """Write out a softmax attention whose softmax is float32; see the function of PyTorch."""
    gain = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    scores = ((query * gain) @ (key * gain).transpose(-2, -1)).float()
    if attn_mask is not None:
        scores = scores + attn_mask.float()
    return torch.softmax(scores, dim=-1).half() @ value
