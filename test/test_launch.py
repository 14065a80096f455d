from __future__ import annotations

import os
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from depth_node import share
from depth_node.ros import parameter_file
from depth_node.ros import transport_profile
from depth_node.settings import Settings
from depth_node.settings import flat
from depth_node.settings import parameters
from depth_node.settings import settings_from

ROOT = Path(__file__).parents[1]
LAUNCH_FILE = ROOT / 'launch' / 'depth.launch.py'
NAV2_NAMES = {'namespace', 'params_file', 'use_sim_time', 'autostart', 'use_respawn', 'log_level'}
OWN_NAMES = {'model', 'engine', 'image', 'camera_info', 'rviz'}


# ---- the parameter file


def test_the_parameter_file_is_made_from_the_settings():
    written = (ROOT / 'config' / 'depth_node.yaml').read_text()
    assert written == parameter_file.text(), (
        'run: python -m depth_node.ros.parameter_file > config/depth_node.yaml'
    )


def test_the_parameter_file_holds_every_default_in_its_type():
    tree = yaml.safe_load(parameter_file.text())['/**']['ros__parameters']
    values = {
        f'{concern}.{name}': value
        for concern, leaf in tree.items()
        for name, value in leaf.items()
    }
    assert values == flat(Settings())
    for parameter in parameters():
        assert type(values[parameter.name]) is type(parameter.default)
    assert settings_from(values) == Settings()


def test_rclpy_reads_the_parameter_file_in_the_types_of_the_settings():
    rclpy = pytest.importorskip('rclpy')
    context = rclpy.Context()
    path = ROOT / 'config' / 'depth_node.yaml'
    rclpy.init(args=['--ros-args', '--params-file', str(path)], context=context)
    node = rclpy.create_node(
        'depth_node', context=context, automatically_declare_parameters_from_overrides=True
    )
    try:
        read = {item.name: node.get_parameter(item.name).value for item in parameters()}
        assert settings_from(read) == Settings()
    finally:
        node.destroy_node()
        context.try_shutdown()


# ---- the DDS profile


def test_the_profile_has_a_segment_for_large_messages_and_udp_for_other_machines():
    profile = ROOT / 'config' / 'fastdds_large_messages.xml'
    root = ElementTree.parse(profile).getroot()  # noqa: S314 (a file of ours)
    space = {'f': root.tag[1:].partition('}')[0]}
    transports = {
        item.findtext('f:type', namespaces=space): item
        for item in root.iterfind('.//f:transport_descriptor', space)
    }
    assert set(transports) == {'SHM', 'UDPv4'}
    assert int(transports['SHM'].findtext('f:segment_size', namespaces=space)) >= 16 << 20
    defined = {item.findtext('f:transport_id', namespaces=space) for item in transports.values()}
    used = {item.text for item in root.iterfind('.//f:userTransports/f:transport_id', space)}
    assert used == defined
    assert root.findtext('.//f:useBuiltinTransports', namespaces=space) == 'false'
    period = root.find('.//f:leaseAnnouncement', space)
    assert period.findtext('f:sec', namespaces=space) == '0'
    assert int(period.findtext('f:nanosec', namespaces=space)) == 200_000_000


def test_the_profile_is_given_under_both_names_unless_the_user_has_chosen():
    given = transport_profile.profile_variables({})
    assert set(given) == {'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'}
    assert set(given.values()) == {str(ROOT / 'config' / 'fastdds_large_messages.xml')}
    for name in (*given, 'FASTDDS_BUILTIN_TRANSPORTS'):
        assert transport_profile.profile_variables({name: 'mine'}) == {}


def test_a_profile_file_of_the_user_in_the_current_folder_is_left_in_force(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert transport_profile.profile_variables({})
    (tmp_path / 'DEFAULT_FASTRTPS_PROFILES.xml').write_text('<dds/>')
    assert transport_profile.profile_variables({}) == {}


def test_use_profile_keeps_what_was_there():
    environment = {'HOME': '/home/robot'}
    transport_profile.use_profile(environment)
    assert environment['HOME'] == '/home/robot'
    assert len(environment) == 3


def test_shared_files_are_found_beside_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / 'lib' / 'python3.11' / 'site-packages' / 'depth_node'
    package.mkdir(parents=True)
    config = tmp_path / 'share' / 'depth_node' / 'config'
    config.mkdir(parents=True)
    (config / 'depth_node.yaml').write_text('x')
    monkeypatch.setattr(share, '__file__', str(package / 'share.py'))
    found = share.shared_file('config', 'depth_node.yaml')
    assert found == config / 'depth_node.yaml'


def test_a_shared_file_that_is_missing_is_named_with_the_places():
    with pytest.raises(FileNotFoundError, match=r'config/nothing.yaml.*share/depth_node'):
        share.shared_file('config', 'nothing.yaml')


# ---- RViz


def test_rviz_does_not_normalize_and_shows_the_topics_of_the_node():
    config = yaml.safe_load((ROOT / 'config' / 'depth_node.rviz').read_text())
    manager = config['Visualization Manager']
    displays = {item['Name']: item for item in manager['Displays']}
    assert displays['Depth']['Normalize Range'] is False
    assert displays['Depth']['Topic']['Value'] == '/depth/image_rect'
    assert displays['Points']['Topic']['Value'] == '/points'
    relative = displays['Relative depth']
    assert relative['Topic']['Value'] == '/depth/relative'
    # Without a unit there is no range to set, and without +Inf nothing is painted over.
    assert relative['Normalize Range'] is True and relative['Enabled'] is False
    assert manager['Global Options']['Fixed Frame'] == 'camera_optical_frame'


# ---- the launch file


def test_the_launch_file_compiles():
    compile(LAUNCH_FILE.read_text(), str(LAUNCH_FILE), 'exec')


@pytest.fixture
def launched(monkeypatch):
    """Return a function from launch arguments to (launch context, actions that follow)."""
    launch = pytest.importorskip('launch')
    pytest.importorskip('launch_ros')
    for name in (*transport_profile.PROFILE_VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS'):
        monkeypatch.delenv(name, raising=False)
    saved = dict(os.environ)

    def run(**arguments):
        described = runpy.run_path(str(LAUNCH_FILE))['generate_launch_description']()
        context = launch.LaunchContext()
        context.launch_configurations.update(arguments)
        nodes = []
        for entity in described.entities:
            nodes += entity.visit(context) or []
        return context, described, nodes

    yield run
    os.environ.clear()
    os.environ.update(saved)
    sys.modules.pop('depth.launch', None)


def test_every_launch_argument_has_a_description(launched):
    _, described, _ = launched()
    arguments = {item.name: item.description for item in described.get_launch_arguments()}
    assert set(arguments) == NAV2_NAMES | OWN_NAMES
    assert all(len(text) > 10 for text in arguments.values())


def test_the_launch_file_gives_the_dds_profile_to_all_that_it_starts(launched):
    context, _, _ = launched()
    assert context.environment['FASTRTPS_DEFAULT_PROFILES_FILE'].endswith('.xml')
    assert context.environment['FASTDDS_DEFAULT_PROFILES_FILE'].endswith('.xml')


def test_the_launch_file_starts_the_node_and_rviz_only_if_asked(launched):
    assert [node.node_package for node in launched()[2]] == ['depth_node']
    with_rviz = [node.node_package for node in launched(rviz='true')[2]]
    assert with_rviz == ['depth_node', 'rviz2']


@pytest.fixture
def launch_functions(monkeypatch):
    """Return the functions of the launch file; the launch packages need not be installed."""
    import types

    for package, names in {
        'launch': ['LaunchDescription'],
        'launch.actions': ['DeclareLaunchArgument', 'OpaqueFunction', 'SetEnvironmentVariable'],
        'launch.substitutions': ['LaunchConfiguration'],
        'launch_ros': [],
        'launch_ros.actions': ['Node', 'PushRosNamespace'],
    }.items():
        double = types.ModuleType(package)
        for name in names:
            setattr(double, name, lambda *args, **options: options)
        monkeypatch.setitem(sys.modules, package, double)
    return runpy.run_path(str(LAUNCH_FILE))


def test_camera_info_is_looked_for_beside_the_image(launch_functions):
    remappings = launch_functions['remappings']
    assert dict(remappings('/camera/color/image_raw', '')) == {
        'image': '/camera/color/image_raw',
        'image/compressed': '/camera/color/image_raw/compressed',
        'camera_info': '/camera/color/camera_info',
    }
    assert dict(remappings('image', ''))['camera_info'] == 'camera_info'
    assert dict(remappings('/a/image', '/b/info'))['camera_info'] == '/b/info'


def test_only_given_arguments_win_over_the_parameter_file(launch_functions):
    defaults = {name: default for name, default, _ in launch_functions['ARGUMENTS']}
    depth_node = launch_functions['depth_node']
    assert depth_node(defaults)['parameters'] == [str(ROOT / 'config' / 'depth_node.yaml')]
    given = {**defaults, 'model': 'm', 'autostart': 'false', 'use_respawn': 'true'}
    described = depth_node({**given, 'params_file': 'mine.yaml'})
    assert described['parameters'] == ['mine.yaml', {'model.name': 'm', 'node.autostart': False}]
    assert described['respawn'] is True
    assert described['ros_arguments'] == ['--log-level', 'info']


def test_a_switch_that_is_neither_true_nor_false_is_refused(launch_functions):
    with pytest.raises(ValueError, match='maybe'):
        launch_functions['is_true']('maybe')
