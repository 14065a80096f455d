"""Start the depth node, and RViz if wanted; `ros2 launch -s` lists the arguments."""

import os

from launch.actions import DeclareLaunchArgument
from launch.actions import OpaqueFunction
from launch.actions import SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.actions import PushRosNamespace

from depth_node.ros.transport_profile import profile_variables
from depth_node.share import shared_file
from launch import LaunchDescription

# name, default, description; an empty default leaves the choice to params_file.
ARGUMENTS = (
    ('namespace', '', 'Namespace of the node and of its topics.'),
    ('params_file', '', 'Parameter file; empty takes config/depth_node.yaml of this package.'),
    ('use_sim_time', '', 'Take the time from /clock (true or false); empty: as params_file says.'),
    ('autostart', '', 'Configure and activate at start (true or false); empty: as params_file.'),
    ('use_respawn', 'false', 'Start the node again when it ends (true or false).'),
    ('log_level', 'info', 'Log level of the node: debug, info, warn, error or fatal.'),
    ('model', '', 'Name or path of the model; empty: as params_file says.'),
    ('engine', '', 'Engine that runs the model; empty: as params_file says.'),
    ('image', 'image', 'Topic of the camera image, without /compressed.'),
    ('camera_info', '', 'Topic of the camera; empty: camera_info beside the image topic.'),
    ('cameras', '', 'Cameras that share one engine, with commas between; empty: as params_file.'),
    ('rviz', 'false', 'Start RViz with the view of this package (true or false).'),
)
RESPAWN_DELAY_S = 2.0


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            *(
                SetEnvironmentVariable(name, value)
                for name, value in profile_variables(os.environ).items()
            ),
            OpaqueFunction(function=nodes),
        ]
    )


def nodes(context) -> list:
    chosen = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    started = [PushRosNamespace(chosen['namespace'])] if chosen['namespace'] else []
    started.append(depth_node(chosen))
    if is_true(chosen['rviz']):
        started.append(rviz(prefixes(chosen['cameras'])[0]))
    return started


def depth_node(chosen: dict) -> Node:
    file = chosen['params_file'] or str(shared_file('config', 'depth_node.yaml'))
    return Node(
        package='depth_node',
        executable='depth_node',
        name='depth_node',
        output='screen',
        parameters=[file, *overrides(chosen)],
        remappings=[
            pair
            for prefix in prefixes(chosen['cameras'])
            for pair in remappings(chosen['image'], chosen['camera_info'], prefix)
        ],
        ros_arguments=['--log-level', chosen['log_level']],
        respawn=is_true(chosen['use_respawn']),
        respawn_delay=RESPAWN_DELAY_S,
    )


def rviz(prefix: str) -> Node:
    return Node(
        package='rviz2',
        executable='rviz2',
        name='rviz_depth',
        output='screen',
        arguments=['-d', str(shared_file('config', 'depth_node.rviz'))],
        # The file names absolute topics so that it also works by hand; here they follow the
        # namespace.
        remappings=[
            (f'/{topic}', prefix + topic)
            for topic in ('depth/image_rect', 'depth/relative', 'points')
        ],
    )


def overrides(chosen: dict) -> list:
    """Return the parameters that were given as arguments and win over the file."""
    texts = {'model.name': chosen['model'], 'model.engine': chosen['engine']}
    switches = {
        'use_sim_time': chosen['use_sim_time'],
        'node.autostart': chosen['autostart'],
    }
    given = {name: text for name, text in texts.items() if text}
    given.update({name: is_true(text) for name, text in switches.items() if text})
    if chosen['cameras']:
        given['cameras'] = camera_names(chosen['cameras'])
    return [given] if given else []


def camera_names(text: str) -> list:
    """Return the names in ``text``; the node judges them."""
    return [name.strip() for name in text.split(',')]


def prefixes(cameras: str) -> list:
    """Return what stands before the topics of each camera; '' where the node has but one."""
    return [f'{name}/' for name in camera_names(cameras)] if cameras else ['']


def remappings(image: str, camera_info: str, prefix: str = '') -> list:
    """Return the remaps of the inputs; by convention camera_info lies beside the image.

    With several cameras the topics lie below the name of each, which is its prefix.
    """
    folder, slash, _ = image.rpartition('/')
    described = camera_info or f'{folder}{slash}camera_info'
    for topic in (image, described):
        if prefix and topic.startswith('/'):
            raise ValueError(
                f'launch argument image or camera_info: received {topic!r}, expected with cameras '
                'a topic below the name of each, without / at the beginning'
            )
    return [
        (f'{prefix}image', prefix + image),
        (f'{prefix}image/compressed', f'{prefix}{image}/compressed'),
        (f'{prefix}camera_info', prefix + described),
    ]


def is_true(text: str) -> bool:
    if text.lower() in ('true', '1'):
        return True
    if text.lower() in ('false', '0'):
        return False
    raise ValueError(f'launch argument: received {text!r}, expected true or false')
