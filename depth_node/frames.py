"""What travels between the rooms: frozen values, no ROS types, no behaviour beyond properties.

Convention: pixel (0, 0) is the centre of the top left pixel, u to the right, v down; camera
coordinates are those of an optical frame, x right, y down, z forward, in metres; colours are RGB.
Depth is measured along z: NaN is unknown, +Inf is 'nothing within range', never 0.0.  Relative
inverse depth has no unit and no fixed zero, so that it has a type of its own and never stands
where metres do.
Stamps are nanoseconds of the clock of the sender; ``*_steady_ns`` are of this machine's monotonic
clock and serve for ages and waits.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from dataclasses import field
from typing import Union

import numpy as np
from numpy.typing import NDArray

from depth_node.settings import PointsSettings

Buffer = Union[bytes, bytearray, memoryview]

FLOAT32 = 7
"""sensor_msgs/PointField.FLOAT32."""


@dataclass(frozen=True)
class RawImage:
    """The fields of a sensor_msgs/Image, unchecked."""

    height: int
    """Rows, pixels."""
    width: int
    """Columns, pixels."""
    encoding: str
    """As sent, e.g. 'rgb8'."""
    is_bigendian: int
    """As sent; 0 or 1 when well formed."""
    step: int
    """Length of a row, bytes."""
    data: Buffer
    """Pixels as sent; not copied."""
    stamp_ns: int = 0
    """Time of acquisition, nanoseconds."""
    frame_id: str = ''
    """Optical frame of the camera."""


@dataclass(frozen=True)
class CompressedImage:
    """The fields of a sensor_msgs/CompressedImage, unchecked."""

    format: str
    """As sent, e.g. 'jpeg' or '16UC1; compressedDepth png'."""
    data: Buffer
    """File bytes as sent; not copied."""
    stamp_ns: int = 0
    """Time of acquisition, nanoseconds."""
    frame_id: str = ''
    """Optical frame of the camera."""


@dataclass(frozen=True)
class CameraFields:
    """The fields of a sensor_msgs/CameraInfo, unchecked; the names are those of the message."""

    width: int
    """Columns of the full sensor image, pixels."""
    height: int
    """Rows of the full sensor image, pixels."""
    distortion_model: str
    """'plumb_bob', 'rational_polynomial', 'equidistant' or ''."""
    d: tuple[float, ...]
    """Distortion coefficients, in the order of the model."""
    k: tuple[float, ...]
    """3x3 row-major intrinsics of the raw image, pixels."""
    r: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    """3x3 row-major rectifying rotation."""
    p: tuple[float, ...] = ()
    """3x4 row-major projection of the rectified image, pixels; empty where there is none."""
    binning_x: int = 0
    """Camera pixels per image pixel along u; 0 means 1."""
    binning_y: int = 0
    """Camera pixels per image pixel along v; 0 means 1."""
    roi_x_offset: int = 0
    """Left column of the region of interest, full-resolution pixels."""
    roi_y_offset: int = 0
    """Top row of the region of interest, full-resolution pixels."""
    roi_width: int = 0
    """Columns of the region of interest, full-resolution pixels; 0 means the full image."""
    roi_height: int = 0
    """Rows of the region of interest, full-resolution pixels; 0 means the full image."""
    roi_do_rectify: bool = False
    """As sent."""
    frame_id: str = ''
    """Optical frame of the camera."""
    stamp_ns: int = 0
    """Nanoseconds."""


@dataclass(frozen=True)
class CameraModel:
    """A pinhole camera: the intrinsics of an image without distortion."""

    width: int
    """Columns, pixels."""
    height: int
    """Rows, pixels."""
    fx: float
    """Focal length along u, pixels; 0 where the camera is unknown, as in a camera_info."""
    fy: float
    """Focal length along v, pixels; 0 where the camera is unknown."""
    cx: float
    """Principal point along u, pixels; pixel centres are integers."""
    cy: float
    """Principal point along v, pixels; pixel centres are integers."""

    @property
    def is_known(self) -> bool:
        """Tell whether there are intrinsics: without them a pixel has no ray."""
        return self.fx > 0.0

    @property
    def k(self) -> NDArray[np.float64]:
        """Return the 3x3 intrinsic matrix, pixels."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class CameraImage:
    """A decoded image on its way to the network."""

    rgb: NDArray[np.uint8]
    """(H, W, 3) RGB; rows may be strided, pixels are packed; read only."""
    stamp_ns: int
    """Time of acquisition, nanoseconds; copied from the message."""
    frame_id: str
    """Optical frame of the camera; copied from the message."""
    camera: str = ''
    """Name of the camera among several that one node serves; empty where there is one."""


@dataclass(frozen=True)
class PointField:
    """One sensor_msgs/PointField."""

    name: str
    """'x', 'y', 'z' or 'rgb'."""
    offset: int
    """Bytes from the start of the point."""
    datatype: int = FLOAT32
    """A constant of sensor_msgs/PointField."""
    count: int = 1
    """Elements of the field."""


@dataclass(frozen=True, eq=False)
class PackedCloud:
    """The fields of a sensor_msgs/PointCloud2 besides its header."""

    data: array[int]
    """Type code 'B', width * height * point_step bytes; valid until the next frame is
    packed."""
    width: int
    """Points per row."""
    height: int
    """Rows; 1 where the cloud is not organized."""
    point_step: int
    """Length of a point, bytes."""
    fields: tuple[PointField, ...]
    """What a point holds."""
    is_dense: bool
    """True where no point is NaN."""

    @property
    def row_step(self) -> int:
        """Return the length of a row, bytes."""
        return self.width * self.point_step


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What every image becomes, besides the numbers that only its kind of model gives."""

    camera: CameraModel
    """Intrinsics of the frame; its width and height are those of the arrays."""
    rgb: NDArray[np.uint8]
    """(H, W, 3) RGB, the rectified image at the size of the frame."""
    stamp_ns: int
    """Stamp of the source image, nanoseconds."""
    frame_id: str
    """Optical frame of the source image."""
    stage_ns: dict[str, int] = field(default_factory=dict)
    """Time spent per stage, nanoseconds, in the order in which they ran."""


@dataclass(frozen=True, kw_only=True)
class DepthFrame(Frame):
    """What an image became by a model of metric depth."""

    depth_m: NDArray[np.float32]
    """(H, W) metres along z; NaN unknown, +Inf nothing within range."""
    cloud: PackedCloud | None = None
    """The points, where the engine has packed them already; None: to be packed from the depth."""
    cloud_settings: PointsSettings | None = None
    """What ``cloud`` was packed for."""


@dataclass(frozen=True, kw_only=True)
class RelativeFrame(Frame):
    """What an image became by a model of relative inverse depth.

    ``1 / depth_m = a * inverse + b`` with a positive a and some b that nobody knows and that
    differ from image to image.
    """

    inverse: NDArray[np.float32]
    """(H, W) without unit, as the network gave it; larger is nearer; NaN unknown, never Inf.
    As b is unknown, 0 is a number like any other and negative ones are no fault: what REP-117
    says of 0 and Inf is about depth.  Networks that end in a ReLU, such as MiDaS, give 0 where
    they see nothing but 'far'."""


OutputFrame = Union[DepthFrame, RelativeFrame]
