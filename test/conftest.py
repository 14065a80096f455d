"""Fixtures that several files share, and what is left out where torch is missing.

Everything but training, import and export runs without torch, on Python 3.10 to 3.13; so do its
tests: ``pip install -r requirements/run.txt -r requirements/test.txt && pytest -m 'not slow'``.
"""

import gc
import importlib.util
import signal

import pytest

pytest_plugins = ['node_rig']

_ABOUT_TORCH = (
    'batch_rendering',
    'conformance',
    'cuda_engine',
    'diffnet',
    'ecodepth',
    'ecodepth_files',
    'engine_benchmark',
    'engines',
    'export',
    'finetune_run',
    'finetune_takes',
    'finetune_telling',
    'finetuning_losses',
    'finetuning_samples',
    'finetuning_settled_scale',
    'finetuning_step',
    'finetuning_trainer',
    'finetuning_warp',
    'finetuning_without_poses',
    'folding',
    'gpu_frame',
    'graph_files',
    'half',
    'large_models',
    'levit',
    'lite_mono',
    'midas',
    'model_making',
    'models_tool',
    'monodepth2',
    'network_page',
    'network_vectors',
    'performance_page',
    'pretrain_tool',
    'pretraining',
    'pretraining_steps',
    'quantization',
    'quantization_arithmetic',
    'rewrites',
    'sqldepth',
    'swin',
)
_LARGE_NETWORKS = ('network_vectors',)
collect_ignore = (
    [] if importlib.util.find_spec('torch') else [f'test_{name}.py' for name in _ABOUT_TORCH]
)


@pytest.fixture(scope='session', autouse=True)
def own_cache(tmp_path_factory):
    """Keep compiled networks of invented models out of the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='session', autouse=True)
def interruptible():
    """Take SIGINT as a terminal would give it, to us and to every program that a test starts.

    A shell starts what runs in its background with SIGINT ignored, and that is inherited: a node
    would then end at SIGTERM alone, many seconds later, and Ctrl-C could not be tested.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='module', autouse=True)
def short_collections():
    """Leave what is imported by now out of every later search for garbage.

    A million objects of torch and its exporter, which never go away, make each take half a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope='module', autouse=True)
def one_thread(request):
    """Small networks on a busy machine wait longer for a second thread than they compute."""
    name = request.module.__name__.removeprefix('test_')
    if name not in _ABOUT_TORCH or name in _LARGE_NETWORKS:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
