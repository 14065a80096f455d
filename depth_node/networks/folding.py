"""Layers of a trained network that vanish into others, found by tracing it.

The tree of a network's modules does not say which convolution a batch normalisation follows, nor
who else reads it.  A trace by torch.fx does, with every use of every result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch import fx
from torch import nn

from depth_node.networks.efficientnet import SameConv
from depth_node.networks.half import KeepsFloat32

EXACT = torch.float64
"""Type of the arithmetic on weights."""


def folded(served: nn.Module) -> nn.Module:
    """Return a module that does the same with fewer layers.

    A batch normalisation that is the only reader of a convolution goes into its weights, and what
    does not reach the output, such as the heads of coarser scales, is left out.

    :param served: module for inference, in evaluation mode, from one tensor to one tensor; it is
        not changed.
    :returns: a graph of the layers of ``served``, weights shared but for the convolutions that
        changed; or ``served`` itself where it has no batch normalisation or cannot be
        traced, because its steps depend on the size of the image.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in served.modules()):
        return served
    try:
        graph = _Tracer().trace(served)
    # stand-ins for tensors run through the network: what it asks of them may raise anything
    except Exception:
        return served
    made = fx.GraphModule(served, graph, type(served).__name__)
    made.graph.eliminate_dead_code()
    for conv, norm in list(_pairs(made)):
        layers: Any = [made.get_submodule(node.target) for node in (conv, norm)]
        made.set_submodule(conv.target, folded_batch_norm(*layers))
        norm.replace_all_uses_with(conv)
        made.graph.erase_node(norm)
    made.delete_all_unused_submodules()
    made.recompile()
    return made


class _Tracer(fx.Tracer):
    """Keeps convolutions whole, also those that pad by size, and what must stay in float32."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module becomes one node."""
        whole = isinstance(m, (nn.Conv2d, KeepsFloat32))
        return whole or super().is_leaf_module(m, module_qualified_name)


def _pairs(made: fx.GraphModule) -> Iterator[tuple[Any, Any]]:
    """Yield the nodes of every convolution and the batch normalisation that alone reads it."""
    layers = dict(made.named_modules())
    calls = {node: layers[node.target] for node in made.graph.nodes if node.op == 'call_module'}
    counts = Counter(node.target for node in calls)
    for norm, layer in calls.items():
        conv: Any = norm.args[0]
        if type(layer) is not nn.BatchNorm2d or padding_of(calls.get(conv)) is None:
            continue
        # a layer that is called twice has one set of weights, and a result that two read is needed
        if counts[conv.target] == counts[norm.target] == len(conv.users) == 1:
            yield conv, norm


def padding_of(layer: nn.Module | None) -> tuple[int, int] | None:
    """Return the zeros before and after rows and columns that a convolution sees at any size.

    A :class:`SameConv` of stride 1 with an odd kernel pads alike whatever the size.

    :returns: None for what is no such convolution.
    """
    if isinstance(layer, SameConv):
        rows, columns = layer.kernel_size
        alike = layer.stride == (1, 1) and rows % 2 == columns % 2 == 1
        return (rows // 2, columns // 2) if alike else None
    if not isinstance(layer, nn.Conv2d) or type(layer) is not nn.Conv2d:
        return None
    known = layer.padding_mode == 'zeros' and isinstance(layer.padding, tuple)
    return layer.padding if known else None


def folded_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution for a convolution followed by a batch normalisation.

    With g = weight / sqrt(var + eps): W' = g W and b' = bias + g (b - mean).

    :param conv: one that :func:`padding_of` knows.
    """
    gain = norm.weight.to(EXACT) / (norm.running_var.to(EXACT) + norm.eps).sqrt()
    shift = norm.bias.to(EXACT) - gain * norm.running_mean.to(EXACT)
    if conv.bias is not None:
        shift = shift + gain * conv.bias.to(EXACT)
    return convolution(conv, conv.weight.to(EXACT) * gain[:, None, None, None], shift)


def convolution(like: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a convolution shaped like another one, with weights given in float64."""
    made = nn.utils.skip_init(
        nn.Conv2d,
        weight.shape[1] * like.groups,
        weight.shape[0],
        like.kernel_size,
        like.stride,
        padding_of(like),
        like.dilation,
        like.groups,
        bias=bias is not None,
        device=like.weight.device,
        dtype=like.weight.dtype,
    )
    made.weight.copy_(weight)
    if bias is not None:
        made.bias.copy_(bias)
    return made
