"""A laser scan from the depth by depthimage_to_laserscan, beside the scan of the node itself.

    ros2 launch depth_node depth.launch.py
    cd $(ros2 pkg prefix --share depth_node)/examples
    ros2 launch ./depthimage_to_laserscan.launch.py output_frame:=camera_link

Tried: that the file loads with launch and launch_ros of Jazzy and describes this node; names of
topics, parameters and the executable were read in the source of depthimage_to_laserscan (ros2).
Not tried: running it, for want of a machine with C++ packages of ROS 2.

To know: the node's own ``scan`` needs none of this; so this one goes to another topic.  Keep its
``range_max`` at or below the node's ``depth.max_m``.  It takes ``scan_height`` rows about the
optical centre and knows nothing of the floor: with a camera that looks down, the floor becomes an
obstacle.
"""

from launch.actions import DeclareLaunchArgument
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

# name, default, description
ARGUMENTS = (
    ('namespace', '', 'Namespace of the depth node and of this one.'),
    ('scan', 'scan_of_depth', 'Topic of the scan; the node itself publishes scan.'),
    ('output_frame', 'camera_link', 'Frame of the scan: x forward, z up, not the optical frame.'),
    ('scan_height', '20', 'Rows of the depth image that are looked at, pixels.'),
    ('range_min', '0.3', 'Nearest range, metres.'),
    ('range_max', '10.0', 'Farthest range, metres.'),
    ('scan_time', '0.033', 'Time from scan to scan, seconds.'),
)


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
    return [
        Node(
            package='depthimage_to_laserscan',
            executable='depthimage_to_laserscan_node',
            name='depthimage_to_laserscan',
            namespace=chosen['namespace'],
            output='screen',
            parameters=[
                {
                    'output_frame': chosen['output_frame'],
                    'scan_height': int(chosen['scan_height']),
                    'range_min': float(chosen['range_min']),
                    'range_max': float(chosen['range_max']),
                    'scan_time': float(chosen['scan_time']),
                }
            ],
            remappings=[
                ('depth', 'depth/image_rect'),
                ('depth_camera_info', 'depth/camera_info'),
                ('scan', chosen['scan']),
            ],
        )
    ]
