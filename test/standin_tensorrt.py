"""Stand-ins for TensorRT and for the driver, which hold the order of calls and compute no network.

The driver is C, so that a wrong type or number of arguments fails as it would there.
"""

from __future__ import annotations

import ctypes
import types
from pathlib import Path
from typing import Any

import numpy as np

# Copies are memcpy, the one stream and the one graph are addresses of variables; what a call may
# get wrong (a pointer cut to 32 bits, an argument forgotten) fails here as it would in a driver.
DRIVER = """
#include <stdlib.h>
#include <string.h>
typedef unsigned long long ptr;
typedef void (*work)(void);
static int context, stream, capturing, steps;
static struct { void *to; const void *from; size_t size; work run; } step[16];
static __thread void *current;
int fake_fail_capture, fake_fail_sync, fake_freed, fake_init, fake_largest = 1 << 28;
int cuInit(unsigned flags) { return fake_init ? fake_init : flags; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Stand-in", size); return device != 7; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == 16 ? 16 : which == 75 ? 8 : which == 76 ? 7 : -1; return device != 7; }
int cuDevicePrimaryCtxRetain(void **out, int device) { *out = &context; return device != 7; }
int cuCtxSetCurrent(void *wanted) { current = wanted; return wanted == &context ? 0 : 201; }
int cuGetErrorName(int code, const char **text) { *text = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_X"; return 0; }
int cuGetErrorString(int code, const char **text) { *text = "words"; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 100 << 20; *total = 200 << 20; return 0; }
int cuMemAlloc_v2(ptr *out, size_t size) {
  if (!current) return 201;
  if (size > (size_t)fake_largest) return 2;
  *out = (ptr)malloc(size); return 0; }
int cuMemFree_v2(ptr address) { if (!current) return 201; free((void *)address); fake_freed++; return 0; }
int cuMemHostAlloc(void **out, size_t size, unsigned flags) { *out = malloc(size); return current ? flags : 201; }
int cuMemFreeHost(void *address) { free(address); fake_freed++; return 0; }
int cuStreamCreate(void **out, unsigned flags) { *out = &stream; return flags != 1; }
int cuStreamDestroy_v2(void *s) { return s == &stream ? 0 : 400; }
int cuStreamSynchronize(void *s) { return fake_fail_sync ? 700 : s != &stream || capturing ? 400 : 0; }
static void go(int i) { if (step[i].run) step[i].run(); else memcpy(step[i].to, step[i].from, step[i].size); }
static int put(void *to, const void *from, size_t size, work run) {
  int at = capturing ? steps++ : 15;
  step[at].to = to; step[at].from = from; step[at].size = size; step[at].run = run;
  if (!capturing) go(15);
  return 0; }
int cuMemcpyHtoDAsync_v2(ptr to, const void *from, size_t size, void *s) { return s == &stream ? put((void *)to, from, size, 0) : 400; }
int cuMemcpyDtoHAsync_v2(void *to, ptr from, size_t size, void *s) { return s == &stream ? put(to, (void *)from, size, 0) : 400; }
int fake_enqueue(work run) { return put(0, 0, 0, run); }
int cuStreamBeginCapture_v2(void *s, int mode) { steps = 0; capturing = 1; return s == &stream ? mode != 1 : 400; }
int cuStreamEndCapture(void *s, void **graph) { capturing = 0; *graph = fake_fail_capture ? 0 : (void *)step; return fake_fail_capture; }
int cuGraphInstantiateWithFlags(void **out, void *graph, unsigned long long flags) { *out = &steps; return graph == step ? (int)flags : 400; }
int cuGraphLaunch(void *graph, void *s) {
  if (graph != &steps || s != &stream) return 400;
  for (int i = 0; i < steps; i++) go(i);
  return 0; }
int cuGraphExecDestroy(void *graph) { return graph == &steps ? 0 : 400; }
int cuGraphDestroy(void *graph) { return graph == step ? 0 : 400; }
"""  # noqa: E501


class Script:
    """What the stand-in for TensorRT does wrong, and what it was told."""

    def __init__(self) -> None:
        self.refused_plans = 0
        self.without_context = False
        self.failing_runs = 0
        self.fails_in_build = ''
        self.shape = (1, 3, 192, 256)
        self.network_flags: list[int] = []
        self.cleared: list[str] = []
        self.timings: list[bytes] = []
        self.builds = 0
        self.parsed: list[str] = []
        self.runs = 0
        self.enqueue: Any = None


def fake_tensorrt(version: str, script: Script | None = None) -> Any:
    """Return a module with the calls of TensorRT that are used; output = first plane + 1."""
    script = script or Script()
    trt: Any = types.ModuleType('tensorrt')
    trt.__version__ = version
    trt.script = script
    trt.float32 = 'float32'
    trt.ILogger = type('ILogger', (), {'ERROR': 1, 'WARNING': 2})
    trt.IProgressMonitor = type('IProgressMonitor', (), {})
    trt.TensorIOMode = types.SimpleNamespace(INPUT=0, OUTPUT=1)
    trt.BuilderFlag = types.SimpleNamespace(TF32='TF32')
    flags = {} if version.startswith('11') else {'STRONGLY_TYPED': 1}
    trt.NetworkDefinitionCreationFlag = types.SimpleNamespace(**flags)

    def port(shape: tuple[int, ...]) -> Any:
        return types.SimpleNamespace(shape=shape, dtype=trt.float32)

    class Network:
        num_inputs = num_outputs = 1

        def get_input(self, _: int) -> Any:
            return port(script.shape)

        def get_output(self, _: int) -> Any:
            return port((1, 1, *script.shape[2:]))

    class Config:
        progress_monitor: Any = None

        def clear_flag(self, flag: str) -> None:
            script.cleared.append(flag)

        def create_timing_cache(self, data: bytes) -> Any:
            return types.SimpleNamespace(data=data, serialize=lambda: data + b't')

        def set_timing_cache(self, timing: Any, ignore_mismatch: bool) -> bool:
            assert ignore_mismatch is False
            script.timings.append(timing.data)
            self.timing = timing
            return timing.data != b'tt'

        def get_timing_cache(self) -> Any:
            return self.timing

    class Builder:
        def __init__(self, log: Any) -> None:
            self.log = log

        def create_network(self, flags: int) -> Network:
            script.network_flags.append(flags)
            return Network()

        def create_builder_config(self) -> Config:
            return Config()

        def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
            script.builds += 1
            assert config.progress_monitor.step_complete('timing', 0)
            if script.fails_in_build:
                self.log.log(1, script.fails_in_build)
                return None
            return b'plan %d' % script.builds

    class OnnxParser:
        def __init__(self, network: Network, log: Any) -> None:
            pass

        def parse_from_file(self, path: str) -> bool:
            script.parsed.append(Path(path).name)
            return Path(path).is_file()

    class Context:
        def __init__(self) -> None:
            self.addresses: dict[str, int] = {}
            self.work = ctypes.CFUNCTYPE(None)(self.compute)

        def set_tensor_address(self, name: str, address: int) -> None:
            self.addresses[name] = address

        def execute_async_v3(self, stream: int) -> bool:
            script.runs += 1
            if script.failing_runs and script.runs >= script.failing_runs:
                trt.log.log(1, 'an enqueue that failed')
                return False
            return script.enqueue(self.work) == 0

        def compute(self) -> None:
            count = script.shape[2] * script.shape[3]
            image, output = (
                np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[name]))
                for name in ('image', 'output')
            )
            output[...] = image + 1

    class Engine:
        num_io_tensors = 2

        def get_tensor_name(self, index: int) -> str:
            return ('output', 'image')[index]  # not in the order that one would hope for

        def get_tensor_mode(self, name: str) -> int:
            return int(name == 'output')

        def get_tensor_dtype(self, name: str) -> str:
            return str(trt.float32)

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return script.shape if name == 'image' else (1, 1, *script.shape[2:])

        def create_execution_context(self) -> Context | None:
            return None if script.without_context else Context()

    class Runtime:
        def __init__(self, log: Any) -> None:
            trt.log = log

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            assert plan.startswith(b'plan')
            if script.refused_plans:
                script.refused_plans -= 1
                trt.log.log(1, 'a plan of another GPU')
                return None
            return Engine()

    trt.Builder, trt.OnnxParser, trt.Runtime = Builder, OnnxParser, Runtime
    return trt
