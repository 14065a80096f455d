"""Clouds of full resolution, made by C++ in the container in which their readers run.

    ros2 launch depth_node depth.launch.py image:=/camera/image_rect
    cd $(ros2 pkg prefix --share depth_node)/examples
    ros2 launch ./depth_image_proc.launch.py image:=/camera/image_rect

Only the depth leaves the Python process, a quarter of the size of the cloud; the cloud is
handed on by pointer to components of the same container.  Leave the node's own ``points`` without
a subscriber, and it costs nothing.

Tried: that the file loads with launch and launch_ros of Jazzy and describes these components;
names of topics, parameters and plugins were read in the source of depth_image_proc and image_proc
(rolling).  Not tried: running it, for want of a machine with C++ packages of ROS 2; Humble.

To know: ``image`` must be reliable and have the size of the depth (``depth.full_size: true``), and
``camera_info`` must lie beside it.  With ``rectify:=true`` name the raw topic; it is rectified to
``image_rect`` beside it.  +Inf becomes NaN in this cloud: it marks, but nothing clears.
"""

from launch.actions import DeclareLaunchArgument
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode

from launch import LaunchDescription

# name, default, description
ARGUMENTS = (
    ('namespace', '', 'Namespace of the depth node and of the container.'),
    ('image', 'image', 'Image topic: rectified, or raw with rectify:=true.'),
    ('rectify', 'false', 'Rectify the image in the container (true or false).'),
    ('points', 'points_full', 'Topic of the cloud.'),
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
            OpaqueFunction(function=container),
        ]
    )


def container(context) -> list:
    chosen = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    image = chosen['image']
    folder, slash, _ = image.rpartition('/')
    components = []
    if chosen['rectify'].lower() == 'true':
        rectified = f'{folder}{slash}image_rect'
        remaps = [
            ('image', image),
            ('camera_info', f'{folder}{slash}camera_info'),
            ('image_rect', rectified),
        ]
        components.append(
            component(chosen, 'image_proc', 'image_proc::RectifyNode', 'rectify', remaps)
        )
        image = rectified
    remaps = [
        ('depth_registered/image_rect', 'depth/image_rect'),
        ('rgb/image_rect_color', image),
        ('rgb/camera_info', f'{folder}{slash}camera_info'),
        ('points', chosen['points']),
    ]
    plugin = 'depth_image_proc::PointCloudXyzrgbNode'
    # The stamp of the depth is that of its image, to the nanosecond.
    parameters = [{'exact_sync': True, 'queue_size': QUEUE}]
    components.append(component(chosen, 'depth_image_proc', plugin, 'cloud', remaps, parameters))
    return [
        ComposableNodeContainer(
            name='depth_container',
            namespace=chosen['namespace'],
            package='rclcpp_components',
            executable='component_container_mt',
            composable_node_descriptions=components,
            output='screen',
        )
    ]


def component(chosen, package, plugin, name, remaps, parameters=()) -> ComposableNode:
    """Return a component that hands on pointers to those beside it."""
    return ComposableNode(
        package=package,
        plugin=plugin,
        name=name,
        namespace=chosen['namespace'],
        remappings=remaps,
        parameters=list(parameters),
        extra_arguments=[{'use_intra_process_comms': True}],
    )
