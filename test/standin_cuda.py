"""A stand-in for ``torch.cuda`` and for the driver that runs on the processor.

A graph records the operations that PyTorch dispatches and, when replayed, does them again on the
same memory: what Python looked at while it was recorded is frozen, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from depth_node.engines.cuda_driver import Gpu

MIB = 1 << 20


class Script:
    """What goes wrong, and what was done."""

    def __init__(self) -> None:
        self.fails_in_capture: Exception | None = None
        self.fails_in_replay: Exception | None = None
        self.lost = False
        self.pinning_fails = False
        self.pinned: set[int] = set()
        self.captures = 0
        self.replays = 0
        self.emptied = 0
        self.modes: list[str] = []


class FakeDriver:
    """The driver's part: a GPU, its memory, and memory that it copies from."""

    gpu = Gpu('Stand-in', (8, 7), 16, '12.6')

    def __init__(self) -> None:
        self.in_use = False

    def use(self) -> None:
        self.in_use = True

    def memory_bytes(self) -> tuple[int, int]:
        return 100 * MIB, 200 * MIB

    def host_array(self, shape: tuple[int, ...]) -> np.ndarray:
        assert self.in_use
        return np.zeros(shape, np.float32)


class _Recorder(TorchDispatchMode):
    def __init__(self, steps: list[Any]) -> None:
        super().__init__()
        self.steps = steps

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if call is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError('CUDA error: operation not permitted when stream is capturing')
        result = call(*args, **(kwargs or {}))
        self.steps.append((call, args, kwargs or {}, result))
        return result


class _Graph:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.steps: list[Any] = []

    def replay(self) -> None:
        self.script.replays += 1
        if self.script.fails_in_replay is not None:
            raise self.script.fails_in_replay
        for call, args, kwargs, old in self.steps:
            new = call(*args, **kwargs)
            pairs = zip(old, new) if isinstance(old, (list, tuple)) else [(old, new)]  # noqa: B905
            for before, after in pairs:
                if isinstance(before, torch.Tensor) and before.data_ptr() != after.data_ptr():
                    before.copy_(after)


class _Stream:
    def wait_stream(self, _: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


class _Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: _Stream) -> None:
        assert isinstance(stream, _Stream)

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: _Event) -> float:
        assert later is not self
        return 0.001


class FakeCuda:
    """The calls of ``torch.cuda`` that are used."""

    OutOfMemoryError = torch.cuda.OutOfMemoryError
    Stream = _Stream
    Event = _Event

    def __init__(self, script: Script) -> None:
        self.script = script

    def CUDAGraph(self) -> _Graph:
        return _Graph(self.script)

    def current_stream(self) -> _Stream:
        return _Stream()

    def graph_pool_handle(self) -> tuple[int, int]:
        return (0, 1)

    @contextmanager
    def stream(self, stream: _Stream) -> Iterator[None]:
        assert isinstance(stream, _Stream)
        yield

    @contextmanager
    def graph(
        self, graph: _Graph, *, pool: object, stream: _Stream, capture_error_mode: str
    ) -> Iterator[None]:
        assert pool == (0, 1) and isinstance(stream, _Stream)
        self.script.modes.append(capture_error_mode)
        self.script.captures += 1
        with _Recorder(graph.steps):
            yield
        if self.script.fails_in_capture is not None:
            raise self.script.fails_in_capture

    def cudart(self) -> FakeCuda:
        return self

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        if self.script.pinning_fails:
            return 801
        self.script.pinned.add(address)
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        self.script.pinned.remove(address)
        return 0

    def synchronize(self) -> None:
        if self.script.lost:
            raise RuntimeError('CUDA error: an illegal memory access was encountered')

    def empty_cache(self) -> None:
        self.synchronize()
        self.script.emptied += 1

    def memory_allocated(self) -> int:
        return 30 * MIB


class FakeTorch:
    """PyTorch with the stand-in for ``torch.cuda``."""

    def __init__(self, script: Script) -> None:
        self.cuda = FakeCuda(script)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)
