"""The examples name what the node has, and what launch can describe."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from depth_node.ros import interface
from depth_node.settings import Settings
from depth_node.settings import settings_from

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / 'examples'
LAUNCH_FILES = sorted(EXAMPLES.glob('*.launch.py'))
OUTPUTS = {topic.name for topic in interface.OUTPUTS}


def layers():
    tree = yaml.safe_load((EXAMPLES / 'nav2_costmap.yaml').read_text())
    return tree['local_costmap']['local_costmap']['ros__parameters']


# ---- Nav2


def test_the_costmap_marks_from_the_points_and_clears_from_a_scan():
    costmap = layers()
    assert costmap['plugins'][-1] == 'inflation_layer'
    assert set(costmap['plugins']) <= set(costmap)
    voxels, scan = costmap['voxel_layer'], costmap['obstacle_layer']['depth_scan']
    assert voxels['observation_sources'].split() == ['depth_marks', 'depth_clears']
    assert costmap['obstacle_layer']['observation_sources'] == 'depth_scan'
    for name in ('depth_marks', 'depth_clears'):
        assert voxels[name]['topic'].lstrip('/') in OUTPUTS
        assert voxels[name]['data_type'] == 'PointCloud2'
    assert scan['topic'].lstrip('/') in OUTPUTS and scan['data_type'] == 'LaserScan'
    # Without it +Inf, nothing in range, would clear nothing.
    assert scan['inf_is_valid'] is True and scan['clearing'] is True


def test_the_parameters_for_several_cameras_are_those_of_the_node():
    tree = yaml.safe_load((EXAMPLES / 'several_cameras.yaml').read_text())
    given = tree['/**']['ros__parameters']
    values = {'cameras': given.pop('cameras')}
    for concern, chosen in given.items():
        values |= {f'{concern}.{name}': value for name, value in chosen.items()}
    assert settings_from(values).cameras == ('front', 'left', 'rear')


def test_the_costmap_clears_farther_than_it_marks_and_within_the_depth_of_the_node():
    costmap = layers()
    voxels, scan = costmap['voxel_layer'], costmap['obstacle_layer']['depth_scan']
    for marks, clears in ((voxels['depth_marks'], voxels['depth_clears']), (scan, scan)):
        assert marks['marking'] and clears['clearing']
        assert marks['obstacle_max_range'] < clears['raytrace_max_range'] < Settings().depth.max_m
    height = voxels['origin_z'] + voxels['z_voxels'] * voxels['z_resolution']
    assert height >= voxels['max_obstacle_height']
    assert voxels['z_voxels'] <= 16  # Nav2 keeps a column in 16 bits
    # The floor, and what its depth errs by, is no obstacle; but where it is seen, there is none.
    assert not voxels['depth_marks']['clearing'] and not voxels['depth_clears']['marking']
    assert voxels['depth_marks']['min_obstacle_height'] > 0.0
    assert voxels['depth_clears']['min_obstacle_height'] < 0.0


# ---- launch files


@pytest.mark.parametrize('path', LAUNCH_FILES, ids=lambda path: path.name)
def test_an_example_says_what_was_tried_and_what_not(path):
    text = path.read_text()
    compile(text, str(path), 'exec')
    head = text.split('"""')[1]
    assert 'Tried:' in head and 'Not tried:' in head


def test_every_example_says_what_was_tried():
    files = [path for path in EXAMPLES.iterdir() if path.is_file()]
    assert len(files) >= 5
    for path in files:
        assert 'Tried: ' in path.read_text(), path.name


@pytest.fixture
def described(monkeypatch):
    """Return a function from an example and its arguments to what it starts, as plain options."""
    for package, names in {
        'launch': ['LaunchDescription'],
        'launch.actions': ['DeclareLaunchArgument', 'OpaqueFunction'],
        'launch.substitutions': ['LaunchConfiguration'],
        'launch_ros': [],
        'launch_ros.actions': ['ComposableNodeContainer', 'Node'],
        'launch_ros.descriptions': ['ComposableNode'],
    }.items():
        double = types.ModuleType(package)
        for name in names:
            setattr(double, name, lambda *args, **options: options)
        monkeypatch.setitem(sys.modules, package, double)

    def run(name, function, **arguments):
        module = runpy.run_path(str(EXAMPLES / name))
        chosen = {key: default for key, default, _ in module['ARGUMENTS']} | arguments
        module[function].__globals__['LaunchConfiguration'] = lambda key: types.SimpleNamespace(
            perform=lambda context: chosen[key]
        )
        return module[function](None)

    return run


def test_the_cloud_is_made_of_our_depth_and_the_image_in_one_container(described):
    (container,) = described('depth_image_proc.launch.py', 'container', image='/cam/image_rect')
    (cloud,) = container['composable_node_descriptions']
    remaps = dict(cloud['remappings'])
    assert remaps['depth_registered/image_rect'] in OUTPUTS
    assert remaps['rgb/image_rect_color'] == '/cam/image_rect'
    assert remaps['rgb/camera_info'] == '/cam/camera_info'
    assert remaps['points'] not in OUTPUTS
    assert cloud['extra_arguments'] == [{'use_intra_process_comms': True}]
    assert cloud['parameters'][0]['exact_sync'] is True


def test_a_raw_image_is_rectified_in_the_container_first(described):
    (container,) = described(
        'depth_image_proc.launch.py', 'container', image='/cam/image_raw', rectify='true'
    )
    rectify, cloud = container['composable_node_descriptions']
    assert dict(rectify['remappings'])['image'] == '/cam/image_raw'
    rectified = dict(rectify['remappings'])['image_rect']
    assert dict(cloud['remappings'])['rgb/image_rect_color'] == rectified == '/cam/image_rect'


def test_the_scan_and_the_map_are_made_of_topics_of_the_node(described):
    (scan,) = described('depthimage_to_laserscan.launch.py', 'nodes')
    remaps = dict(scan['remappings'])
    assert {remaps['depth'], remaps['depth_camera_info']} <= OUTPUTS
    # Two publishers of one topic would be mixed up.
    assert remaps['scan'] not in OUTPUTS
    assert scan['parameters'][0]['range_max'] <= Settings().depth.max_m
    odometry, mapping = described('rtabmap.launch.py', 'nodes')
    for node in (odometry, mapping):
        remaps = dict(node['remappings'])
        assert {remaps['rgb/camera_info'], remaps['depth/image']} <= OUTPUTS
    assert len(described('rtabmap.launch.py', 'nodes', visual_odometry='false')) == 1


@pytest.mark.parametrize('path', LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_describes_an_example(path):
    launch = pytest.importorskip('launch')
    pytest.importorskip('launch_ros')
    description = runpy.run_path(str(path))['generate_launch_description']()
    context = launch.LaunchContext()
    started = []
    for entity in description.entities:
        started += entity.visit(context) or []
    assert started
    for argument in description.get_launch_arguments():
        assert len(argument.description) > 10


# ---- containers


@pytest.mark.parametrize('name', ['Dockerfile', 'Dockerfile.jetson'])
def test_a_dockerfile_copies_what_is_there_and_says_that_it_was_not_built(name):
    text = (ROOT / 'docker' / name).read_text()
    assert 'NOT BUILT YET' in text
    for source in re.findall(r'^COPY (\S+) ', text, re.MULTILINE):
        assert (ROOT / source).exists(), source
    wanted = re.search(r"grep -E '(.+?)'", text)[1]
    pinned = (ROOT / 'requirements' / 'run.txt').read_text().splitlines()
    found = {line.partition('==')[0] for line in pinned if re.match(wanted, line)}
    assert found == {'openvino', 'onnxruntime', 'safetensors', 'rosbags'}


def test_the_entry_of_a_container_becomes_its_command(tmp_path):
    script = (ROOT / 'docker' / 'entrypoint.sh').read_text()
    for folder in ('/opt/ros/$ROS_DISTRO/', '/ws/install/'):
        script = script.replace(folder, f'{tmp_path}/')
    (tmp_path / 'setup.sh').write_text('export DISTRO_SOURCED=yes\n')
    (tmp_path / 'local_setup.sh').write_text('export WORKSPACE_SOURCED=yes\n')
    command = ('sh', '-c', 'echo $$ $DISTRO_SOURCED$WORKSPACE_SOURCED')
    words = ['sh', '-c', script, 'entrypoint', *command]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as started:
        identity, sourced = started.communicate(timeout=10)[0].split()
    # Signals of `docker stop` go to the first process alone.
    assert int(identity) == started.pid
    assert sourced == 'yesyes'
