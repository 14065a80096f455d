"""Cameras without calibration: parameters stand in until a usable camera_info comes."""

from __future__ import annotations

import math

import pytest

from depth_node.camera import chosen_view
from depth_node.camera import horizontal_fov_rad
from depth_node.camera.assumed import AssumedCamera
from depth_node.errors import CameraRejected
from depth_node.errors import SettingsError
from depth_node.frames import CameraModel
from depth_node.settings import CameraSettings
from depth_node.settings import settings_from

PIXELS = CameraSettings(intrinsics='500 505 310 245')
WIDE = CameraSettings(horizontal_fov_deg=90.0)


def model_of(assumed, chosen, width, height, rectify='auto'):
    fields = assumed.fields(chosen, width, height, 'optical')
    view = chosen_view(fields, width, height, rectify, rectified_input=False)
    assert view.rectifier is None
    return view.model


@pytest.mark.parametrize('rectify', ['auto', 'always', 'never'])
def test_intrinsics_are_those_of_the_first_image_and_nothing_is_rectified(rectify):
    model = model_of(AssumedCamera(), PIXELS, 640, 480, rectify)
    assert model == CameraModel(640, 480, 500.0, 505.0, 310.0, 245.0)


def test_a_resized_image_scales_the_intrinsics_about_the_corner_of_the_image():
    assumed = AssumedCamera()
    model_of(assumed, PIXELS, 640, 480)
    assert model_of(assumed, PIXELS, 320, 240) == CameraModel(320, 240, 250, 252.5, 154.75, 122.25)
    assert model_of(assumed, PIXELS, 1280, 960).cx == 620.5
    assert model_of(assumed, PIXELS, 640, 480).fx == 500.0


def test_an_image_of_another_shape_does_not_fit_the_intrinsics():
    assumed = AssumedCamera()
    model_of(assumed, PIXELS, 640, 480)
    with pytest.raises(CameraRejected, match=r'^camera\.intrinsics: .*640 x 360.*640 x 480'):
        assumed.fields(PIXELS, 640, 360, '')


def test_new_intrinsics_are_those_of_the_next_image():
    assumed = AssumedCamera()
    model_of(assumed, PIXELS, 640, 480)
    other = CameraSettings(intrinsics='300 300 159.5 119.5')
    assert model_of(assumed, other, 320, 240).fx == 300.0


@pytest.mark.parametrize('text', ['500 505 310 480', '500 505 640 245', '60000 60000 310 245'])
def test_intrinsics_of_another_image_are_refused_and_the_first_size_stays_open(text):
    assumed = AssumedCamera()
    chosen = CameraSettings(intrinsics=text)
    with pytest.raises(CameraRejected, match='640 x 480') as refused:
        assumed.fields(chosen, 640, 480, '')
    assert refused.value.reason == 'camera_intrinsics'
    assert assumed._first is None


def test_a_field_of_view_gives_a_centred_camera_with_square_pixels_at_every_size():
    assumed = AssumedCamera()
    for width, height in ((640, 480), (320, 240), (640, 360)):
        model = model_of(assumed, WIDE, width, height)
        assert horizontal_fov_rad(model) == pytest.approx(math.radians(90.0))
        assert model.fx == model.fy == pytest.approx(0.5 * width)
        assert (model.cx, model.cy) == ((width - 1) / 2, (height - 1) / 2)


def test_every_field_of_view_that_may_be_set_gives_a_camera():
    for degrees in (5.0, 170.0):
        model_of(AssumedCamera(), CameraSettings(horizontal_fov_deg=degrees), 1280, 720)


def test_intrinsics_go_before_the_field_of_view():
    both = CameraSettings(intrinsics=PIXELS.intrinsics, horizontal_fov_deg=90.0)
    assert model_of(AssumedCamera(), both, 640, 480).fx == 500.0


def test_without_parameters_there_is_no_camera():
    assert AssumedCamera().fields(CameraSettings(), 640, 480, '') is None


@pytest.mark.parametrize('size', [(0, 480), (640, 2**31)])
def test_a_size_that_no_camera_has_is_refused(size):
    for chosen in (PIXELS, WIDE):
        with pytest.raises(CameraRejected):
            AssumedCamera().fields(chosen, *size, '')


@pytest.mark.parametrize(
    'text',
    ['500', '500 505 310', '500 505 310 245 1', '500,505,310,245', 'a b c d', 'nan 505 310 245',
     '500 inf 310 245', '0 505 310 245', '-500 -505 310 245', '500 505 -1 245', '500 5 310 245',
     '500 505 inf 245', ' ', '1e308 1e308 1e308 1e308'],
)  # fmt: skip
def test_intrinsics_that_are_no_intrinsics_are_refused_with_the_whole_set(text):
    with pytest.raises(SettingsError, match=r'camera\.intrinsics') as refused:
        settings_from({'camera.intrinsics': text})
    assert '\n' not in str(refused.value)


def test_a_field_of_view_in_radians_is_noticed():
    with pytest.raises(SettingsError, match='degrees'):
        settings_from({'camera.horizontal_fov_deg': 1.2})
