"""Play a recording as a live camera, with the depth node and RViz.

``ros2 launch depth_node demo.launch.py recording:=/path/to/bag``; `ros2 launch -s` lists the
arguments.  Reading recordings needs the Python package rosbags.  A recording to try it with is
rendered by ``python -m depth_node.tools.world``.
"""

import os
import sys
from pathlib import Path

from launch.actions import DeclareLaunchArgument
from launch.actions import ExecuteProcess
from launch.actions import GroupAction
from launch.actions import IncludeLaunchDescription
from launch.actions import OpaqueFunction
from launch.actions import SetEnvironmentVariable
from launch.actions import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from depth_node.ros.transport_profile import profile_variables
from launch import LaunchDescription

# name, default, description; None has to be given.
OWN_ARGUMENTS = (
    ('recording', None, 'rosbag2 folder, .mcap, .db3 or ROS 1 .bag; with video:=true a film.'),
    ('video', 'false', 'The recording is a video file (true or false).'),
    ('hfov_deg', '65.0', 'Horizontal field of view of a video, degrees.'),
    ('rate', '1.0', 'Speed; 1 is that of the recording.'),
    ('loop', 'true', 'Begin again at the end; false ends the launch there (true or false).'),
)
# Handed on to depth.launch.py, which explains the values.
NODE_ARGUMENTS = (
    ('namespace', '', 'Namespace of the player, the node and their topics.'),
    ('params_file', '', 'Parameter file; empty takes config/depth_node.yaml of this package.'),
    ('autostart', '', 'Configure and activate at start (true or false); empty: as params_file.'),
    ('use_respawn', 'false', 'Start the node again when it ends (true or false).'),
    ('log_level', 'info', 'Log level of the node: debug, info, warn, error or fatal.'),
    ('model', '', 'Name or path of the model; empty: as params_file says.'),
    ('engine', '', 'Engine that runs the model; empty: as params_file says.'),
    ('rviz', 'true', 'Start RViz with the view of this package (true or false).'),
)
ARGUMENTS = (*OWN_ARGUMENTS, *NODE_ARGUMENTS)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            # The player sends the images, so it needs the large segment as much as the node.
            *(
                SetEnvironmentVariable(name, value)
                for name, value in profile_variables(os.environ).items()
            ),
            OpaqueFunction(function=processes),
        ]
    )


def processes(context) -> list:
    chosen = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    handed_on = [(name, chosen[name]) for name, _, _ in NODE_ARGUMENTS]
    # The clock is real: the player stamps with the time of publishing.
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).parent / 'depth.launch.py')),
        launch_arguments=handed_on,
    )
    player = ExecuteProcess(
        cmd=player_words(chosen),
        name='player',
        output='screen',
        on_exit=Shutdown(reason='the recording has been played'),
    )
    return [GroupAction([node]), player]


def player_words(chosen: dict) -> list:
    """Return the command of the player."""
    words = [sys.executable, '-m', 'depth_node.ros.player', chosen['recording']]
    if is_true(chosen['video']):
        words += ['--video', '--hfov-deg', chosen['hfov_deg']]
    if is_true(chosen['loop']):
        words.append('--loop')
    words += ['--rate', chosen['rate']]
    namespace = chosen['namespace'].strip('/')
    return [*words, '--ros-args', '-r', f'__ns:=/{namespace}'] if namespace else words


def is_true(text: str) -> bool:
    if text.lower() in ('true', '1'):
        return True
    if text.lower() in ('false', '0'):
        return False
    raise ValueError(f'launch argument: received {text!r}, expected true or false')
