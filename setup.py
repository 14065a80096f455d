import re
from pathlib import Path

from setuptools import find_packages
from setuptools import setup

PACKAGE = 'depth_node'
HERE = Path(__file__).parent
TOOLS = ('benchmark', 'conformance', 'demo', 'evaluate', 'finetune', 'models', 'pretrain', 'world')
VERSION = re.search(
    r"^__version__ = '(.+)'$", (HERE / PACKAGE / '__init__.py').read_text(), re.MULTILINE
).group(1)


def data_files():
    """List what ROS looks for below share/: the folders as they are in the source."""
    share = f'share/{PACKAGE}'
    listed = [
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (share, ['package.xml']),
    ]
    for top in ('launch', 'config', 'models', 'examples'):
        for folder in [HERE / top, *(path for path in sorted((HERE / top).rglob('*')))]:
            if folder.is_dir() and folder.name != '__pycache__':
                files = [str(p.relative_to(HERE)) for p in sorted(folder.iterdir()) if p.is_file()]
                listed.append((f'{share}/{folder.relative_to(HERE)}', files))
    return listed


setup(
    name=PACKAGE,
    version=VERSION,
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    data_files=data_files(),
    install_requires=['setuptools'],
    extras_require={
        'openvino': ['openvino>=2024.0', 'safetensors>=0.4'],
        'onnxruntime': ['onnxruntime>=1.17', 'safetensors>=0.4'],
        'tensorrt': ['tensorrt>=10.3,<12', 'safetensors>=0.4'],
        'train': ['torch>=2.6', 'onnx>=1.16', 'onnxscript>=0.2', 'safetensors>=0.4'],
        'quantize': ['openvino>=2024.0', 'onnxruntime>=1.17', 'onnx>=1.16', 'safetensors>=0.4'],
        'recordings': ['rosbags>=0.10', 'tqdm>=4.60'],
    },
    python_requires='>=3.10',
    zip_safe=True,
    maintainer='The depth_node developers',
    maintainer_email='depth_node@example.org',
    description='Metric depth images and point clouds from any camera, at batch 1, in real time.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'depth_node = depth_node.ros.node:main',
            *(f'{tool} = depth_node.tools.{tool}:main' for tool in TOOLS),
        ],
    },
)
