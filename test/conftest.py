"""Fixtures that several files share, and what is left out where torch is missing.

Everything but training, import and export runs without torch, on Python 3.10 to 3.13; so do its
tests: ``pip install -r requirements/run.txt -r requirements/test.txt && pytest -m 'not slow'``.
"""

import importlib.util

pytest_plugins = ['node_rig']

_ABOUT_TORCH = (
    'conformance',
    'diffnet',
    'ecodepth',
    'engines',
    'export',
    'folding',
    'graph_files',
    'large_models',
    'levit',
    'lite_mono',
    'midas',
    'models_tool',
    'monodepth2',
    'network_page',
    'network_vectors',
    'rewrites',
    'sqldepth',
    'swin',
)
collect_ignore = (
    [] if importlib.util.find_spec('torch') else [f'test_{name}.py' for name in _ABOUT_TORCH]
)
