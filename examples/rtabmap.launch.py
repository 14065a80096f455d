"""RGB-D odometry and a map with RTAB-Map, from image and depth of one camera.

    ros2 launch depth_node depth.launch.py image:=/camera/image_rect
    cd $(ros2 pkg prefix --share depth_node)/examples
    ros2 launch ./rtabmap.launch.py image:=/camera/image_rect

Tried: that the file loads with launch and launch_ros of Jazzy and describes these nodes; names of
packages, executables, topics and queues were read in the source of rtabmap_ros (ros2), those of
the library's parameters (Kp/MaxDepth and so on) are from general knowledge.
Not tried: running it, for want of a machine with C++ packages of ROS 2; so nothing is known of the
quality of a map made from monocular depth, whose scale may drift from image to image.

To know: the image has to be rectified and of the size of the depth (``depth.full_size: true``).
Stamps are equal, so the synchronisation is exact.  TF from ``frame_id`` to the optical frame of
the camera comes from the description of the robot.
"""

from launch.actions import DeclareLaunchArgument
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

# name, default, description
ARGUMENTS = (
    ('namespace', '', 'Namespace of the depth node and of these.'),
    ('image', 'image_rect', 'Rectified colour image.'),
    ('frame_id', 'base_link', 'Frame of the robot.'),
    (
        'max_depth',
        '8.0',
        'Depth beyond this is not used, metres.',
    ),
    ('visual_odometry', 'true', 'Make odometry from the images; false: the robot has its own.'),
)
# Depth comes later than its image by the time of the network: this many images wait for it.
QUEUE = 30


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
    described = [node(chosen, 'rtabmap_slam', 'rtabmap', ['-d'])]
    if chosen['visual_odometry'].lower() == 'true':
        described.insert(0, node(chosen, 'rtabmap_odom', 'rgbd_odometry', []))
    return described


def node(chosen: dict, package: str, executable: str, words: list) -> Node:
    """Return one node of RTAB-Map that reads image, depth and the camera of the depth."""
    # Parameters of the library, which start with a capital letter, are texts.
    library = {'Kp/MaxDepth': chosen['max_depth'], 'Vis/MaxDepth': chosen['max_depth']}
    if executable == 'rtabmap':
        library['Grid/RangeMax'] = chosen['max_depth']
    return Node(
        package=package,
        executable=executable,
        namespace=chosen['namespace'],
        output='screen',
        arguments=words,
        parameters=[
            {
                'frame_id': chosen['frame_id'],
                'subscribe_depth': True,
                'approx_sync': False,
                'topic_queue_size': QUEUE,
                'sync_queue_size': QUEUE,
                **library,
            }
        ],
        remappings=[
            ('rgb/image', chosen['image']),
            ('rgb/camera_info', 'depth/camera_info'),
            ('depth/image', 'depth/image_rect'),
        ],
    )
