"""Start depth for several cameras: a node for each in its namespace, or one process for all.

``ros2 launch depth_node cameras.launch.py cameras:=front,rear`` reads /front/image and
/rear/image and publishes /front/points and so on; `ros2 launch -s` lists the arguments.  Each node
is a process with a model of its own.  On a processor they compete for the cores: give each its
share with model.threads in params_file.

With ``one_process:=true`` one node, with one engine in memory, serves all cameras in turn under
the same names of topics.  A processor or GPU that is busy with one camera loses nothing by that;
one engine alone may not fill a large GPU.
"""

import re
from pathlib import Path

from launch.actions import DeclareLaunchArgument
from launch.actions import GroupAction
from launch.actions import IncludeLaunchDescription
from launch.actions import OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

# name, default, description; None has to be given.
OWN_ARGUMENTS = (
    ('cameras', None, 'Namespaces of the cameras with commas between, e.g. front,rear.'),
    ('namespace', '', 'Namespace in which those of the cameras lie, e.g. of the robot.'),
    ('one_process', 'false', 'One node with one engine for all cameras (true or false).'),
    ('rviz', 'false', 'Start RViz with the view of the first camera (true or false).'),
)
# Handed on to depth.launch.py for every camera, which explains the values.
NODE_ARGUMENTS = (
    ('params_file', '', 'Parameter file of all; empty takes config/depth_node.yaml.'),
    ('use_sim_time', '', 'Take the time from /clock (true or false); empty: as params_file says.'),
    ('autostart', '', 'Configure and activate at start (true or false); empty: as params_file.'),
    ('use_respawn', 'false', 'Start a node again when it ends (true or false).'),
    ('log_level', 'info', 'Log level of the nodes: debug, info, warn, error or fatal.'),
    ('model', '', 'Name or path of the model; empty: as params_file says.'),
    ('engine', '', 'Engine that runs the model; empty: as params_file says.'),
    ('image', 'image', 'Topic of the images, relative to the namespace of the camera.'),
    ('camera_info', '', 'Topic of the cameras, relative too; empty: camera_info beside image.'),
)
ARGUMENTS = (*OWN_ARGUMENTS, *NODE_ARGUMENTS)
_NAMESPACE = re.compile(r'[A-Za-z_]\w*(/[A-Za-z_]\w*)*', re.ASCII)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            OpaqueFunction(function=nodes),
        ]
    )


def nodes(context) -> list:
    chosen = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    file = str(Path(__file__).parent / 'depth.launch.py')
    # A group keeps the namespace and the arguments of one camera from the next.
    return [
        GroupAction(
            [
                IncludeLaunchDescription(
                    PythonLaunchDescriptionSource(file), launch_arguments=given.items()
                )
            ]
        )
        for given in arguments_per_node(chosen)
    ]


def arguments_per_node(chosen: dict) -> list:
    """Return the arguments of depth.launch.py for each node."""
    names = camera_names(chosen['cameras'])
    handed_on = {name: chosen[name] for name, _, _ in NODE_ARGUMENTS}
    if is_true(chosen['one_process']):
        shared = {name: chosen[name] for name in ('namespace', 'rviz')}
        return [{**handed_on, **shared, 'cameras': ','.join(names)}]
    return [
        {
            **handed_on,
            'namespace': '/'.join(part for part in (chosen['namespace'], name) if part),
            'cameras': '',
            'rviz': chosen['rviz'] if name == names[0] else 'false',
        }
        for name in names
    ]


def camera_names(text: str) -> list:
    """Return the namespaces in ``text``; two nodes under one name would answer for each other."""
    names = [name.strip().strip('/') for name in text.split(',')]
    if len(set(names)) < len(names) or not all(_NAMESPACE.fullmatch(name) for name in names):
        raise ValueError(
            f'launch argument cameras: received {text!r}, expected different namespaces with '
            'commas between, e.g. front,rear'
        )
    return names


def is_true(text: str) -> bool:
    if text.lower() in ('true', '1'):
        return True
    if text.lower() in ('false', '0'):
        return False
    raise ValueError(f'launch argument one_process: received {text!r}, expected true or false')
