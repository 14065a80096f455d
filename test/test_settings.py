"""Parameters: a whole set is accepted or refused, with a sentence that helps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from depth_node.errors import MissingPackage
from depth_node.errors import Rejected
from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.settings import Settings
from depth_node.settings import flat
from depth_node.settings import parameters
from depth_node.settings import settings_from
from depth_node.settings import structural_changes

LISTED = parameters()


def test_without_options_the_defaults_are_in_force() -> None:
    assert settings_from({}) == Settings()
    assert flat(Settings()) == {item.name: item.default for item in LISTED}


@pytest.mark.parametrize('item', LISTED, ids=lambda item: item.name)
def test_every_parameter_is_described_and_its_default_is_allowed(item) -> None:
    assert len(item.description) > 20 and item.description.endswith('.')
    assert settings_from({item.name: item.default}) == Settings()
    numeric = isinstance(item.default, (int, float)) and not isinstance(item.default, bool)
    assert numeric == (item.low is not None and item.high is not None)


@pytest.mark.parametrize('item', LISTED, ids=lambda item: item.name)
def test_values_of_another_type_are_refused(item) -> None:
    for wrong in (None, [1.0], 'yes' if not isinstance(item.default, str) else 3):
        with pytest.raises(SettingsError, match=item.name):
            settings_from({item.name: wrong})


@pytest.mark.parametrize(
    'item', [item for item in LISTED if item.low is not None], ids=lambda item: item.name
)
def test_numbers_out_of_range_and_no_numbers_are_refused(item) -> None:
    kind = type(item.default)
    for limit in (item.low, item.high):
        # the limits of the depth must not cross each other
        asked = {'depth.min_m': 0.0, 'depth.max_m': 1_000.0}
        asked |= {'scan.min_m': 0.0, 'scan.max_m': 1_000.0}
        asked |= {'points.organized': False, item.name: kind(limit)}
        assert flat(settings_from(asked))[item.name] == limit
    for wrong in (kind(item.low - 1), kind(item.high + 1), math.nan, math.inf):
        with pytest.raises(SettingsError, match=item.name):
            settings_from({item.name: wrong})


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'depth\.maximum'.*depth\.max_m"):
        settings_from({'depth.maximum': 3.0})


def test_a_choice_that_there_is_not_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match='openvino, onnxruntime, torch'):
        settings_from({'model.engine': 'abacus'})
    with pytest.raises(SettingsError, match='empty'):
        settings_from({'model.name': ''})


def test_limits_that_contradict_each_other_are_refused_together() -> None:
    with pytest.raises(SettingsError, match=r'depth\.min_m below depth\.max_m'):
        settings_from({'depth.min_m': 5.0, 'depth.max_m': 5.0})


def test_whole_numbers_pass_as_floats_but_never_the_other_way() -> None:
    assert settings_from({'depth.max_m': 5}).depth.max_m == 5.0
    with pytest.raises(SettingsError):
        settings_from({'points.stride': 2.0})
    with pytest.raises(SettingsError):
        settings_from({'points.stride': True})


def test_random_sets_are_applied_whole_or_refused_with_a_reason() -> None:
    rng = np.random.default_rng(5)
    values = (True, -1, 0, 1, 64, 1e9, 0.5, math.nan, '', 'auto', 'raw', 'always', 'x' * 300)
    applied = 0
    for _ in range(10_000):
        chosen = rng.choice(len(LISTED), int(rng.integers(1, 4)), replace=False)
        asked = {LISTED[i].name: values[int(rng.integers(len(values)))] for i in chosen}
        try:
            settings = settings_from(asked)
        except SettingsError as error:
            assert error.who and error.expected and len(str(error)) < 1_500
        else:
            applied += 1
            assert {name: flat(settings)[name] for name in asked} == asked
    assert 100 < applied < 9_000


def test_changes_that_need_a_new_configuration_are_named() -> None:
    changed = settings_from({'model.engine': 'torch', 'depth.scale': 2.0})
    assert structural_changes(Settings(), changed) == ('model.engine',)
    assert structural_changes(changed, changed) == ()


def test_text_from_outside_cannot_forge_a_log_line() -> None:
    shown = quoted('x\n[ERROR] forged\x1b[31m' + 'y' * 500)
    assert '\n' not in shown and '\x1b' not in shown and len(shown) == 80


def test_errors_say_who_what_came_what_was_expected_and_what_to_do() -> None:
    error = Rejected('image_size', 'image', '0 rows', 'at least one', 'Look at the camera.')
    assert str(error) == 'image: received 0 rows, expected at least one. Look at the camera.'
    assert error.reason == 'image_size'
    missing = MissingPackage('openvino', 'engine openvino', 'pip install openvino')
    assert 'Run: pip install openvino' in str(missing) and missing.package == 'openvino'
