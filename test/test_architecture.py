"""The rules of docs/architecture.md, held by walking the imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / 'depth_node'

# From the foundation up; a room may import from its own layer and from those before it.
LAYERS = (
    {
        'byte_arrays', 'errors', 'files', 'frames', 'parameter', 'setting_texts', 'settings',
        'share',
    },
    {
        'camera', 'cloud', 'depth_colors', 'depth_image', 'evaluation', 'flying_pixels', 'health',
        'image_codec', 'model_folder', 'newest', 'rate_limit', 'recording', 'region_of_interest',
        'row_prior', 'scan', 'svg', 'temporal_smoothing', 'voxels', 'world',
    },
    {'engines', 'networks', 'pipeline'},
    {'dataset', 'pretraining', 'quantization'},
    {'judging'},
    {'finetuning'},
    {'ros'},
    {'demo'},
    {'benchmark'},
    {'tools'},
)  # fmt: skip
ROS = re.compile(r'^(rclpy|.*_msgs|launch|launch_ros|builtin_interfaces)(\.|$)')
TORCH = (
    'networks', 'engines/torch_engine.py', 'engines/cuda_engine.py', 'engines/gpu_', 'finetuning',
    'pretraining', 'tools/pretrain.py', 'benchmark',
)  # fmt: skip
OPTIONAL = {
    'torch': TORCH,
    'onnx': ('networks', 'quantization'),
    'openvino': ('engines/openvino_engine.py', 'benchmark'),
    'onnxruntime': ('engines/onnxruntime_engine.py', 'quantization', 'benchmark'),
    'rosbags': ('recording/',),
    'tqdm': ('demo/', 'tools/', 'finetuning/progress.py'),
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob('*.py'))


def imported(path: Path) -> set[str]:
    """Return every module that a file imports, at its head or later, for types or in earnest."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f'{node.module}.{alias.name}' for alias in node.names)
    return names


def room_of(module: str) -> str | None:
    parts = module.split('.')
    return parts[1] if parts[0] == 'depth_node' and len(parts) > 1 else None


def layer_of(room: str) -> int:
    found = [index for index, layer in enumerate(LAYERS) if room in layer]
    assert found, f'{room} has no place in the layers: give it one, here and in the docs'
    return found[0]


@pytest.mark.parametrize('path', sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards_only(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    if relative.name == '__init__.py' and len(relative.parts) == 1:
        assert not imported(path)
        return
    own = layer_of(relative.parts[0].removesuffix('.py'))
    for module in imported(path):
        room = room_of(module)
        if room is not None and room != '__version__':
            assert layer_of(room) <= own, f'{relative} reaches up to {module}'


@pytest.mark.parametrize('path', sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_optional_packages_are_imported_in_their_room_only(path: Path) -> None:
    relative = str(path.relative_to(PACKAGE))
    for module in imported(path):
        if ROS.match(module):
            assert relative.startswith('ros/'), f'{relative} imports {module}'
        allowed = OPTIONAL.get(module.partition('.')[0])
        if allowed is not None:
            assert relative.startswith(allowed), f'{relative} imports {module}'


def test_every_module_imports_with_the_packages_of_the_node_alone() -> None:
    code = (
        'import importlib, pkgutil, sys\n'
        "sys.modules.update(dict.fromkeys(('torch', 'onnx', 'rosbags', 'openvino', 'onnxruntime',"
        " 'tqdm', 'safetensors')))\n"
        'import depth_node\n'
        "for item in pkgutil.walk_packages(depth_node.__path__, 'depth_node.'):\n"
        '    if not item.name.startswith(('
        "'depth_node.networks', 'depth_node.pretraining', 'depth_node.finetuning',"
        "'depth_node.engines.torch_engine',"
        "'depth_node.engines.gpu_',"
        " 'depth_node.tools', 'depth_node.demo', 'depth_node.benchmark')):\n"
        '        importlib.import_module(item.name)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_node_serves_without_torch_in_its_process() -> None:
    code = (
        'import sys\n'
        'import numpy as np\n'
        'from depth_node.camera import CameraView\n'
        'from depth_node.camera.fitting import from_horizontal_fov\n'
        'from depth_node.frames import CameraImage\n'
        'import depth_node.ros.lifecycle_node\n'
        'from depth_node.pipeline import Pipeline\n'
        'from depth_node.settings import settings_from\n'
        "settings = settings_from({'model.threads': 1})\n"
        'pipeline = Pipeline.open(settings)\n'
        'image = CameraImage(np.zeros((480, 640, 3), np.uint8), 0, "c")\n'
        'view = CameraView(from_horizontal_fov(640, 480, 1.1), None)\n'
        'frame = pipeline.process(image, view, settings)\n'
        'assert np.isfinite(frame.depth_m).any()\n'
        "found = {'torch', 'onnx', 'rosbags', 'tqdm'} & set(sys.modules)\n"
        'assert not found, found\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_file_is_too_long_to_read() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources() + sorted((ROOT / 'test').rglob('*.py'))
        if (lines := len(path.read_text().splitlines())) > 500
        and not (path.parent.name == 'networks' and path.read_text().count('\nPassport\n'))
    }
    assert not long


def test_modules_that_are_named_in_full_exist() -> None:
    named = {
        (path.name, name)
        for path in sources()
        for name in re.findall(r':mod:`~?(depth_node\.[\w.]+)`', path.read_text())
    }
    assert not [
        (file, name)
        for file, name in sorted(named)
        if not any((ROOT / (name.replace('.', '/') + end)).exists() for end in ('.py', ''))
    ]


def test_nothing_is_called_utils() -> None:
    assert not [path for path in sources() if 'util' in path.name]


def test_the_version_stands_once() -> None:
    from depth_node import __version__

    manifest = (ROOT / 'package.xml').read_text()
    assert f'<version>{__version__}</version>' in manifest
    assert f'\n{__version__} (' in (ROOT / 'CHANGELOG.rst').read_text()
    assert __version__ not in (ROOT / 'setup.py').read_text()


def test_every_requirement_is_pinned() -> None:
    for path in (ROOT / 'requirements').glob('*.txt'):
        for line in path.read_text().splitlines():
            if line and not line.startswith('#'):
                assert re.match(r'^[A-Za-z0-9.\-]+(\[[a-z]+\])?==\S+(; .+)?$', line), line


def test_every_package_that_is_imported_for_ros_is_declared() -> None:
    declared = set(
        re.findall(r'<exec_depend>(.+)</exec_depend>', (ROOT / 'package.xml').read_text())
    )
    ours = {
        module.partition('.')[0]
        for path in [*sources(), *(ROOT / 'launch').glob('*.py')]
        for module in imported(path)
        if ROS.match(module)
    }
    assert ours <= declared


def test_every_tool_has_a_command() -> None:
    tools = {path.stem for path in (PACKAGE / 'tools').glob('*.py')} - {'__init__'}
    listed = re.search(r'TOOLS = \((.+)\)', (ROOT / 'setup.py').read_text())
    assert listed is not None
    assert set(re.findall(r"'(\w+)'", listed[1])) == tools
