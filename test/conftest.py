"""Fixtures that several files share, and what is left out where torch is missing.

Everything but training, import and export runs without torch, on Python 3.10 to 3.13; so do its
tests: ``pip install -r requirements/run.txt -r requirements/test.txt && pytest -m 'not slow'``.
"""

import importlib.util

pytest_plugins = ['node_rig']

_ABOUT_TORCH = ('engines', 'export', 'graph_files', 'lite_mono', 'models_tool', 'rewrites')
collect_ignore = (
    [] if importlib.util.find_spec('torch') else [f'test_{name}.py' for name in _ABOUT_TORCH]
)
