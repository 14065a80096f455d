"""What the node shows to the outside besides its parameters: topics, figures, reasons, exit codes.

Words for docs/node.md; ``test/test_reference.py`` holds them against the node that runs and
against the source.  Whoever adds a topic, a key of /diagnostics, a reason or an exit code adds a
line here and runs ``make docs``.
"""

from __future__ import annotations

from dataclasses import dataclass

_NEWEST = 'reliable, volatile, keep last 1'
_OF_FRAMES = f'{_NEWEST}; lifespan input.max_age_s, as it was on configure'


@dataclass(frozen=True)
class Topic:
    """One topic, as a user meets it."""

    name: str
    """Name before it is remapped, relative to the namespace unless it begins with a slash."""
    kind: str
    """Type as `ros2 topic info` shows it."""
    qos: str
    """How it is delivered without overrides."""
    when: str
    """When it is read or published."""


INPUTS = (
    Topic(
        'image',
        'sensor_msgs/msg/Image',
        'reliable where every publisher offers it, else best effort; volatile, keep last 1',
        'while active, with input.transport raw',
    ),
    Topic(
        'image/compressed',
        'sensor_msgs/msg/CompressedImage',
        'as image',
        'while active, with input.transport compressed',
    ),
    Topic(
        'camera_info',
        'sensor_msgs/msg/CameraInfo',
        'best effort, volatile, keep last 1; a second subscription, reliable and transient local, '
        'once a publisher latches',
        'while active; the last good one with the frame_id of the image is used, else the last '
        'good one of all',
    ),
)

OUTPUTS = (
    Topic(
        'depth/image_rect',
        'sensor_msgs/msg/Image',
        _OF_FRAMES,
        'per frame, if somebody listens; models of metric depth only. 32FC1, metres: NaN unknown, '
        '+Inf nothing within range; others by depth.encoding and depth.beyond. Stamp and frame_id '
        'are those of the source image, here and below',
    ),
    Topic(
        'depth/relative',
        'sensor_msgs/msg/Image',
        _OF_FRAMES,
        'per frame, if somebody listens; models of relative depth only, in place of '
        'depth/image_rect, scan and points. 32FC1 without unit, larger is nearer',
    ),
    Topic(
        'depth/camera_info',
        'sensor_msgs/msg/CameraInfo',
        _OF_FRAMES,
        'with every depth image, if somebody listens and the camera is known; rectified camera of '
        'the size of the depth',
    ),
    Topic(
        'depth/color',
        'sensor_msgs/msg/Image',
        _OF_FRAMES,
        'per frame, if somebody listens. rgb8, a picture for people: do not compute with it',
    ),
    Topic(
        'depth/color/compressed',
        'sensor_msgs/msg/CompressedImage',
        _OF_FRAMES,
        'per frame, if somebody listens; depth/color as a JPEG file (depth.color_quality), for '
        'rqt_image_view or Foxglove over a radio link. Not for sides above 65500 pixels',
    ),
    Topic(
        'scan',
        'sensor_msgs/msg/LaserScan',
        _OF_FRAMES,
        'per frame, if somebody listens and the camera sees its horizon; models of metric depth '
        'only. Its frame_id is scan.frame_id or that of the image without _optical',
    ),
    Topic(
        'points',
        'sensor_msgs/msg/PointCloud2',
        _OF_FRAMES,
        'per frame after the depth, or points.max_rate_hz, if somebody listens; models of metric '
        'depth only',
    ),
    Topic(
        '/diagnostics',
        'diagnostic_msgs/msg/DiagnosticArray',
        _NEWEST,
        'every node.diagnostics_period_s of real time, in every lifecycle state, if somebody '
        'listens',
    ),
)

DIAGNOSTICS = {
    'lifecycle state': 'unconfigured, inactive or active; silence is a fault only while active',
    'images received': 'since the start',
    'images published': 'since the start',
    'dropped: REASON': 'images not published, by reason (next table); only reasons that occurred',
    'camera_info refused: REASON': 'messages that were refused; the last good one stays in force',
    'input rate (Hz)': 'over the last two seconds',
    'output rate (Hz)': 'over the last two seconds',
    'age since arrival p50/p95/p99 (ms)': 'from the arrival of an image to the publishing of its '
    'depth, over the last ten seconds; unknown: nothing was published',
    'age since stamp p50/p95/p99 (ms)': 'the same from the stamp; unknown where clocks disagree',
    'stage NAME (ms)': 'median time of a stage: decode, rectify, resize, network, depth, publish; '
    'engines that make the whole frame have stages of their own',
    'model': 'its name',
    'output': 'metric depth, depth of unknown scale, or relative inverse depth',
    'scale from': 'what makes metres of the output: the focal lengths of model card and camera, '
    'the factor of the card, depth.scale; nothing: the numbers are no metres',
    'weights licence': 'of the model card',
    'model notes': 'of the model card',
    'engine': 'name and version',
    'engine notes': 'why engines that are preferred were passed over',
    'engine build': 'what is being built in the background; empty: nothing',
    'precision': 'arithmetic of the network',
    'device': 'what the engine runs on',
    'network input': 'width x height, pixels',
    'parity error': 'largest deviation from the stored output when the engine was opened, in '
    'standard deviations of that output',
    'input': 'image topic and how it is delivered at present',
    'camera_info': 'size, lens and frame of the camera in use, or that there is none',
    'camera_info age (s)': 'since the last camera_info that could be used',
    'intrinsics from': 'camera_info, camera.intrinsics, camera.horizontal_fov_deg or none; with '
    'none, models of metric depth give nothing, others depth without camera_info, scan and points',
    'stamps': 'what is odd about the stamps of the images, or that they are of now',
}
"""Key of the status ``depth_node: depth``, or ``depth_node: depth CAMERA``, to its meaning."""

_OF_FIELDS = 'the message contradicts itself or holds what is not allowed'
REASONS = {
    'no_subscriber': 'nobody listens to any output; no fault',
    'replaced': 'a newer image came before this one was begun; no fault: the camera is the faster '
    'one',
    'inactive': 'the node was deactivated while it waited; no fault',
    'too_old': 'its depth would have been older than input.max_age_s',
    'duplicate': 'the stamp is that of the last depth image',
    'out_of_order': 'the stamp is older than that of the last depth image',
    'no_camera_info': 'no usable camera_info has come; the metres of this model need the focal '
    'length',
    'image_encoding': 'an encoding that cannot be read, or one of depth',
    'image_endianness': 'is_bigendian is neither 0 nor 1',
    'image_size': 'width or height is zero or impossible for the encoding',
    'image_too_large': 'more pixels than input.max_pixels',
    'image_step': 'the rows are shorter than their pixels, or not whole pixels apart',
    'image_data_length': 'more or fewer bytes than the fields promise',
    'image_compressed': 'the bytes are no image that can be decoded',
    'camera_message': 'a camera_info whose bytes cannot be read',
    'camera_size': f'width or height of camera_info: {_OF_FIELDS}',
    'camera_uncalibrated': 'K[0] is 0: the camera has not been calibrated',
    'camera_intrinsics': f'K: {_OF_FIELDS}',
    'camera_distortion': f'D or distortion_model: {_OF_FIELDS}',
    'camera_rotation': f'R: {_OF_FIELDS}',
    'camera_projection': f'P: {_OF_FIELDS}, or it is missing where it is needed',
    'camera_binning_roi': f'binning or roi: {_OF_FIELDS}',
    'camera_image_size': 'camera_info does not explain the size of the image',
    'image_camera_size': 'the image has another size than its camera: a fault of this package',
    'cloud_size': 'the depth has another size than its camera: a fault of this package',
    'engine_building': 'the engine is still being built for this camera, and no other serves '
    'meanwhile',
    'engine': 'the engine failed; it is opened anew, after three in a row the process ends; '
    'where it fails for one of several cameras alone, that one is served no more',
    'out_of_memory': 'too little memory; the next image is tried, after three in a row the '
    'process ends',
    'engine_output': 'the output is mostly not finite; after three in a row the engine is opened '
    'anew, once',
    'device_lost': 'the GPU is gone; the process ends',
}
"""Reason of a drop, or of a refused camera_info, to its meaning."""

EXIT_CODES = {
    0: 'SIGINT or SIGTERM',
    1: 'not configured: bad parameters, no such model, no engine that works',
    2: 'the worker thread died',
    3: 'the engine failed, or memory was short, on three images in a row, or its model changed on '
    'disk',
    4: 'the engine hangs',
    5: 'the GPU is lost or its memory corrupt: only a new process can use it',
}
"""Exit code of the process to its meaning; a supervisor may start it again after 2 to 5."""
