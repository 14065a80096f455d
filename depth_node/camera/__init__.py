"""Cameras: from the fields of a camera_info to pinhole intrinsics, rays and network input."""

from depth_node.camera.fitting import Fit as Fit
from depth_node.camera.fitting import cropped as cropped
from depth_node.camera.fitting import fit as fit
from depth_node.camera.fitting import from_horizontal_fov as from_horizontal_fov
from depth_node.camera.fitting import horizontal_fov_rad as horizontal_fov_rad
from depth_node.camera.fitting import ray_slopes as ray_slopes
from depth_node.camera.fitting import resized as resized
from depth_node.camera.info import check_fields as check_fields
from depth_node.camera.network_input import NetworkInput as NetworkInput
from depth_node.camera.rectifier import Rectifier as Rectifier
from depth_node.camera.resampling import resampled as resampled
from depth_node.camera.resampling import resampled_mask as resampled_mask
from depth_node.camera.view import CameraView as CameraView
from depth_node.camera.view import chosen_view as chosen_view
from depth_node.camera.view import distort_slopes as distort_slopes
from depth_node.camera.view import has_distortion as has_distortion
from depth_node.camera.view import is_named_rectified as is_named_rectified
from depth_node.camera.view import raw_camera as raw_camera
from depth_node.camera.view import undistorted_slopes as undistorted_slopes
from depth_node.camera.view import view_of as view_of
