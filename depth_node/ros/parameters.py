"""The fields of settings.py as ROS parameters: declared, described, and changed as a whole."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from collections.abc import Iterable

from rcl_interfaces.msg import FloatingPointRange
from rcl_interfaces.msg import IntegerRange
from rcl_interfaces.msg import ParameterDescriptor
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.parameter import Parameter
from depth_node.parameter import Value
from depth_node.settings import Settings
from depth_node.settings import flat
from depth_node.settings import parameters
from depth_node.settings import settings_from
from depth_node.settings import structural_changes

_OF_ROS = ('use_sim_time', 'start_type_description_service')
_OVERRIDES = 'qos_overrides.'


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """Return what `ros2 param describe` tells of a parameter."""
    described = ParameterDescriptor(name=parameter.name, description=parameter.description)
    if parameter.structural:
        described.description += ' Only to be changed while the node is unconfigured.'
    if parameter.choices:
        described.additional_constraints = parameter.allowed
    if isinstance(parameter.default, (float, tuple)):
        # Lets 'depth.max_m 10' pass: a whole number is a number, and settings_from judges it.
        # An empty list has no type in YAML, and is one of bytes to rclpy.
        described.dynamic_typing = True
    if isinstance(parameter.default, tuple):
        described.type = ParameterType.PARAMETER_STRING_ARRAY
    if parameter.low is not None and parameter.high is not None:
        if isinstance(parameter.default, float):
            described.floating_point_range = [
                FloatingPointRange(from_value=parameter.low, to_value=parameter.high)
            ]
        else:
            described.integer_range = [
                IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high))
            ]
    return described


class NodeParameters:
    """The parameters of one node; ``settings`` is always a set that was accepted as a whole."""

    def __init__(self, node: Node, configured: Callable[[], bool]) -> None:
        """Declare all parameters, with what the command line and files say.

        :param configured: tells whether structural parameters are in use.
        :raises SettingsError: when the set is refused.
        :raises rclpy.exceptions.ParameterException: when ROS refuses one value.
        """
        self._configured = configured
        listed = parameters()
        node.declare_parameters(
            '', [(item.name, _for_ros(item.default), descriptor(item)) for item in listed]
        )
        values = {item.name: node.get_parameter(item.name).value for item in listed}
        for item in listed:
            # an empty list in a file is a parameter that is not set
            if values[item.name] is None and isinstance(item.default, tuple):
                values[item.name] = ()
        self._settings = settings_from(values)
        node.add_on_set_parameters_callback(self._change)

    @property
    def settings(self) -> Settings:
        """Return the settings in force; a frame uses one such value from start to end."""
        return self._settings

    def _change(self, changes: list[RosParameter]) -> SetParametersResult:
        """Accept or refuse changes together, with the reason."""
        own = flat(self._settings)
        wanted = {change.name: change.value for change in changes if change.name in own}
        if not wanted:
            return SetParametersResult(successful=True)
        try:
            settings = settings_from({**own, **wanted})
        except SettingsError as error:
            return SetParametersResult(successful=False, reason=str(error))
        fixed = structural_changes(self._settings, settings)
        if fixed and self._configured():
            reason = (
                f'parameter {fixed[0]}: received a change while the node is configured, '
                'expected it while unconfigured. Run: ros2 lifecycle set NODE deactivate, '
                'then cleanup, then change it, then configure and activate'
            )
            return SetParametersResult(successful=False, reason=reason)
        self._settings = settings
        return SetParametersResult(successful=True)


def _for_ros(value: Value) -> bool | float | str | list[str]:
    """Return a value in a type that rclpy takes."""
    return list(value) if isinstance(value, tuple) else value


def unknown_names(given: Iterable[str]) -> list[str]:
    """Return a sentence for each name from outside that no parameter has."""
    known = [parameter.name for parameter in parameters()]
    sentences = []
    for name in given:
        if name in known or name in _OF_ROS or name.startswith(_OVERRIDES):
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f'Did you mean {near[0]}?' if near else 'It has no effect.'
        sentences.append(f'parameter {quoted(name)}: received a name that is not known. {hint}')
    return sentences
