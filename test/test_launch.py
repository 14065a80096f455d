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
DEMO_FILE = ROOT / 'launch' / 'demo.launch.py'
CAMERAS_FILE = ROOT / 'launch' / 'cameras.launch.py'
NAV2_NAMES = {'namespace', 'params_file', 'use_sim_time', 'autostart', 'use_respawn', 'log_level'}
OWN_NAMES = {'model', 'engine', 'image', 'camera_info', 'cameras', 'rviz'}


# ---- the parameter file


def test_the_parameter_file_is_made_from_the_settings():
    written = (ROOT / 'config' / 'depth_node.yaml').read_text()
    assert written == parameter_file.text(), (
        'run: python -m depth_node.ros.parameter_file > config/depth_node.yaml'
    )


def test_the_parameter_file_holds_every_default_in_its_type():
    tree = yaml.safe_load(parameter_file.text())['/**']['ros__parameters']
    values = {}
    for concern, leaf in tree.items():
        if isinstance(leaf, dict):
            values |= {f'{concern}.{name}': value for name, value in leaf.items()}
        else:
            values[concern] = leaf
    defaults = flat(Settings())
    assert defaults.pop('cameras') == () and '\n    # cameras: []\n' in parameter_file.text()
    assert values == defaults
    for name, default in defaults.items():
        assert type(values[name]) is type(default)
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
        given = [item.name for item in parameters() if item.default != ()]
        read = {name: node.get_parameter(name).value for name in given}
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


@pytest.mark.parametrize('path', [LAUNCH_FILE, DEMO_FILE, CAMERAS_FILE])
def test_a_launch_file_compiles(path):
    compile(path.read_text(), str(path), 'exec')


@pytest.fixture
def launched(monkeypatch):
    """Return a function from launch arguments to (launch context, actions that follow)."""
    launch = pytest.importorskip('launch')
    pytest.importorskip('launch_ros')
    for name in (*transport_profile.PROFILE_VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS'):
        monkeypatch.delenv(name, raising=False)
    saved = dict(os.environ)

    def run(path=LAUNCH_FILE, **arguments):
        described = runpy.run_path(str(path))['generate_launch_description']()
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
def launch_doubles(monkeypatch):
    """Put doubles into the place of the launch packages, which need not be installed."""
    import types

    for package, names in {
        'launch': ['LaunchDescription'],
        'launch.actions': [
            'DeclareLaunchArgument',
            'ExecuteProcess',
            'GroupAction',
            'IncludeLaunchDescription',
            'OpaqueFunction',
            'SetEnvironmentVariable',
            'Shutdown',
        ],
        'launch.launch_description_sources': ['PythonLaunchDescriptionSource'],
        'launch.substitutions': ['LaunchConfiguration'],
        'launch_ros': [],
        'launch_ros.actions': ['Node', 'PushRosNamespace'],
    }.items():
        double = types.ModuleType(package)
        for name in names:
            setattr(double, name, lambda *args, **options: options)
        monkeypatch.setitem(sys.modules, package, double)


@pytest.fixture
def launch_functions(launch_doubles):
    """Return the functions of the launch file of the node."""
    return runpy.run_path(str(LAUNCH_FILE))


def defaults_of(functions):
    return {name: default for name, default, _ in functions['ARGUMENTS']}


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


# ---- the launch file of the demo


def test_the_demo_and_the_cameras_know_every_argument_that_they_hand_on(launch_doubles):
    known = defaults_of(runpy.run_path(str(LAUNCH_FILE)))
    # The player stamps with the real time, and the demo plays on the topics of the node.
    left_out = {
        DEMO_FILE: {'use_sim_time', 'image', 'camera_info', 'cameras'},
        CAMERAS_FILE: set(),
    }
    for path, missing in left_out.items():
        own = runpy.run_path(str(path))
        handed_on = {name for name, _, _ in own['NODE_ARGUMENTS']}
        assert set(known) - set(defaults_of(own)) == missing
        assert handed_on <= set(known)
        for name in handed_on - {'rviz'}:
            assert defaults_of(own)[name] == known[name], name


def test_the_demo_plays_in_the_namespace_of_the_node(launch_doubles):
    demo = runpy.run_path(str(DEMO_FILE))
    words = demo['player_words']
    chosen = {**defaults_of(demo), 'recording': '/bags/hall'}
    assert words(chosen)[1:4] == ['-m', 'depth_node.ros.player', '/bags/hall']
    assert '--loop' in words(chosen) and '--video' not in words(chosen)
    assert words({**chosen, 'namespace': '/robot/'})[-3:] == ['--ros-args', '-r', '__ns:=/robot']
    film = words({**chosen, 'video': 'true', 'hfov_deg': '90', 'loop': 'false'})
    assert '--loop' not in film and film[film.index('--hfov-deg') + 1] == '90'


def test_the_player_understands_the_words_of_the_demo(launch_doubles):
    pytest.importorskip('rclpy')
    from depth_node.ros import player

    demo = runpy.run_path(str(DEMO_FILE))
    chosen = {**defaults_of(demo), 'recording': '/bags/hall', 'video': 'true', 'rate': '2.0'}
    options = player._parser().parse_args(demo['player_words'](chosen)[3:])
    assert (str(options.source), options.video, options.rate) == ('/bags/hall', True, 2.0)


# ---- the launch file of several cameras


def test_each_camera_has_a_node_in_its_namespace(launch_doubles):
    cameras = runpy.run_path(str(CAMERAS_FILE))
    chosen = {**defaults_of(cameras), 'cameras': 'front, /rear/', 'rviz': 'true', 'model': 'm'}
    front, rear = cameras['arguments_per_node'](chosen)
    assert (front['namespace'], rear['namespace']) == ('front', 'rear')
    assert (front['rviz'], rear['rviz']) == ('true', 'false')
    assert front['model'] == rear['model'] == 'm'
    (nested,) = cameras['arguments_per_node']({**chosen, 'cameras': 'a', 'namespace': 'robot'})
    assert nested['namespace'] == 'robot/a'


def test_one_process_for_all_cameras_reads_the_topics_that_one_node_each_would(launch_doubles):
    cameras = runpy.run_path(str(CAMERAS_FILE))
    chosen = {**defaults_of(cameras), 'cameras': 'front, rear', 'namespace': 'robot'}
    (alone,) = cameras['arguments_per_node']({**chosen, 'one_process': 'true', 'engine': 'e'})
    assert (alone['namespace'], alone['cameras'], alone['engine']) == ('robot', 'front,rear', 'e')
    with pytest.raises(ValueError, match='one_process'):
        cameras['arguments_per_node']({**chosen, 'one_process': 'maybe'})
    node = runpy.run_path(str(LAUNCH_FILE))
    described = node['depth_node']({**defaults_of(node), **alone, 'image': 'color/image_raw'})
    assert described['parameters'][-1]['cameras'] == ['front', 'rear']
    remaps = dict(described['remappings'])
    assert remaps['rear/image'] == 'rear/color/image_raw'
    assert remaps['front/camera_info'] == 'front/color/camera_info'
    assert len(remaps) == 6
    assert node['rviz']('front/')['remappings'][-1] == ('/points', 'front/points')
    with pytest.raises(ValueError, match='without / at the beginning'):
        node['depth_node']({**defaults_of(node), **alone, 'image': '/camera/image'})


def test_one_process_is_one_node_in_the_namespace_that_was_given(launched):
    context, _, actions = launched(
        CAMERAS_FILE, cameras='front,rear', namespace='robot', one_process='true'
    )
    ((_, namespace),) = nodes_below(actions, context)
    assert namespace == '/robot'


@pytest.mark.parametrize('text', ['front,front', 'front,/front', '', 'a,', 'a b', '1a', 'a//b'])
def test_names_that_are_no_different_namespaces_are_refused(launch_doubles, text):
    with pytest.raises(ValueError, match='cameras'):
        runpy.run_path(str(CAMERAS_FILE))['camera_names'](text)


def nodes_below(actions, context):
    """Return the processes that actions lead to, with the namespace that is in force there."""
    found = []
    for action in actions:
        if type(action).__name__ in ('Node', 'ExecuteProcess'):
            found.append((action, context.launch_configurations.get('ros_namespace', '')))
        else:
            found += nodes_below(action.visit(context) or [], context)
    return found


def test_the_launch_file_of_cameras_starts_each_in_its_own_namespace(launched):
    context, _, actions = launched(CAMERAS_FILE, cameras='front,rear', namespace='robot')
    found = nodes_below(actions, context)
    assert [namespace for _, namespace in found] == ['/robot/front', '/robot/rear']


def test_the_launch_file_of_the_demo_starts_node_and_player(launched):
    context, _, actions = launched(DEMO_FILE, recording='/bags/hall', namespace='robot')
    found = nodes_below(actions, context)
    assert [type(action).__name__ for action, _ in found] == ['Node', 'Node', 'ExecuteProcess']
    assert found[0][1] == '/robot'
    assert context.environment['FASTRTPS_DEFAULT_PROFILES_FILE'].endswith('.xml')


def test_every_argument_of_the_other_launch_files_has_a_description(launched):
    for path in (DEMO_FILE, CAMERAS_FILE):
        described = runpy.run_path(str(path))['generate_launch_description']()
        assert all(len(item.description) > 10 for item in described.get_launch_arguments())
