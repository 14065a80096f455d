"""Cameras that the tests of cameras, lenses and rectification share."""

import dataclasses

import cv2
import numpy as np

from depth_node.frames import CameraFields

K = (450.0, 0.0, 323.0, 0.0, 455.0, 236.0, 0.0, 0.0, 1.0)
P = (430.0, 0.0, 318.5, 0.0, 0.0, 431.0, 240.5, 0.0, 0.0, 0.0, 1.0, 0.0)
BARREL = (-0.35, 0.15, 0.001, -0.002, -0.03)
RATIONAL = (1.2, 0.4, 0.001, -0.0005, 0.05, 1.5, 0.7, 0.1)
PRISM = (*RATIONAL, 0.01, 0.002, -0.01, 0.001)
FISHEYE = (-0.02, 0.01, -0.005, 0.001)

LENSES = {
    'none': ('plumb_bob', (0.0,) * 5),
    'barrel': ('plumb_bob', BARREL),
    'barrel4': ('plumb_bob', BARREL[:4]),
    'pincushion': ('plumb_bob', (0.25, 0.1, 0.004, 0.003, 0.0)),
    'rational': ('rational_polynomial', RATIONAL),
    'prism': ('rational_polynomial', PRISM),
    'fisheye': ('equidistant', FISHEYE),
    'ideal fisheye': ('equidistant', (0.0,) * 4),
}


def fields_of(**changes):
    """Return good fields of a 640x480 camera with some changed."""
    good = CameraFields(640, 480, 'plumb_bob', (0.0,) * 5, K, p=P)
    return dataclasses.replace(good, **changes)


def lens_fields(name, **changes):
    model, d = LENSES[name]
    return fields_of(distortion_model=model, d=d, **changes)


def region(left, top, width, height):
    """Return the fields of a region of interest."""
    return {
        'roi_x_offset': left,
        'roi_y_offset': top,
        'roi_width': width,
        'roi_height': height,
    }


def entries(values, **changes):
    """Return values with entries replaced: _3=1.0 sets number 3."""
    listed = list(values)
    for name, value in changes.items():
        listed[int(name[1:])] = value
    return tuple(listed)


def turned(angle_x_rad, angle_y_rad):
    """Return a rotation about x, then y, row-major."""
    rotation, _ = cv2.Rodrigues(np.array([angle_x_rad, 0.0, 0.0]))
    second, _ = cv2.Rodrigues(np.array([0.0, angle_y_rad, 0.0]))
    return tuple((second @ rotation).ravel().tolist())
