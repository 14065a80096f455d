"""docs/node.md says what the node does: its tables are held against the node and the source."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
import rclpy
from scripted_pipeline import ScriptedPipeline

from depth_node.ros import interface
from depth_node.ros import lifecycle_node
from depth_node.ros import reference
from depth_node.ros import stream
from depth_node.ros import worker
from depth_node.settings import parameters

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'depth_node'
PAGE = (ROOT / 'docs' / 'node.md').read_text()
TOPICS = (*interface.INPUTS, *interface.OUTPUTS)
OF_ROS = ('/rosout', '/parameter_events')
# They are processes of their own, not the node.
OTHER_PROCESSES = ('player.py', 'collector.py')


@functools.cache
def trees():
    return [
        (path, ast.parse(path.read_text()))
        for path in sorted(PACKAGE.rglob('*.py'))
        if path.name != 'interface.py'
    ]


def strings(tree):
    return {
        item.value
        for item in ast.walk(tree)
        if isinstance(item, ast.Constant) and isinstance(item.value, str)
    }


# ---- the page


def test_the_page_and_the_parameter_file_are_made_from_the_code():
    assert reference.page(PAGE) == PAGE, 'run: make docs'


def test_a_table_without_a_place_in_the_page_is_named():
    without = PAGE.replace('made: reasons', 'taken out')
    with pytest.raises(KeyError, match='reasons'):
        reference.page(without)


def test_every_parameter_is_on_the_page_with_default_range_and_when_it_may_change():
    rows = {row.split('|')[1].strip(): row for row in PAGE.splitlines() if row.startswith('| `')}
    for parameter in parameters():
        row = rows[f'`{parameter.name}`']
        cells = [cell.strip() for cell in re.split(r'(?<!\\)\|', row)][1:-1]
        assert len(cells) == 7, row
        value = parameter.default
        shown = "''" if value == '' else str(list(value) if isinstance(value, tuple) else value)
        assert cells[2].lower() == f'`{shown}`'.lower()
        assert cells[5] == ('unconfigured' if parameter.structural else 'any time')
        assert cells[6] == parameter.description.replace('|', '\\|')
        if parameter.low is not None:
            low, _, high = cells[4].partition(' to ')
            assert (float(low), float(high)) == (parameter.low, parameter.high)


def test_a_time_in_seconds_has_the_unit_on_the_page():
    assert re.search(r'`input.max_age_s` \| double \| `0.5` \| s \| 0.01 to 60 \|', PAGE)
    assert re.search(r'`depth.max_m` \| double \| `80.0` \| m \| 0.1 to 1000 \|', PAGE)


def test_links_of_the_page_lead_somewhere():
    for target in re.findall(r'\]\(([^)#]+)\)', PAGE):
        assert (ROOT / 'docs' / target).exists(), target


def test_every_argument_of_every_launch_file_is_on_the_page():
    part = PAGE.partition('made: launch files')[2].partition('<!-- end -->')[0]
    for path in (ROOT / 'launch').glob('*.launch.py'):
        section = part.partition(f'### {path.name}\n')[2].partition('###')[0]
        listed = set(re.findall(r'^\| `(\w+)`', section, re.MULTILINE))
        tree = ast.parse(path.read_text())
        used = {
            item.slice.value
            for item in ast.walk(tree)
            if isinstance(item, ast.Subscript)
            and isinstance(item.value, ast.Name)
            and item.value.id == 'chosen'
            and isinstance(item.slice, ast.Constant)
        }
        assert used and used <= listed, path.name
        assert ('has to be given' in section) == (path.name != 'depth.launch.py')


# ---- topics


@pytest.mark.parametrize('kind', ['metric', 'relative'])
def test_the_topics_of_a_running_node_are_those_of_the_page(rig, kind):
    node = rig(kind=kind).node
    for endpoints, listed in (
        (node.publishers, interface.OUTPUTS),
        (node.subscriptions, interface.INPUTS),
    ):
        known = {str(node.resolve_topic_name(topic.name)): topic for topic in listed}
        for endpoint in endpoints:
            if endpoint.topic_name in OF_ROS:
                continue
            topic = known[endpoint.topic_name]
            package, _, name = topic.kind.partition('/msg/')
            assert endpoint.msg_type.__module__.startswith(f'{package}.msg')
            assert endpoint.msg_type.__name__ == name
            if listed is interface.OUTPUTS:
                profile = endpoint.qos_profile
                words = [word.strip() for word in re.split('[,;]', topic.qos)]
                assert profile.reliability.name.lower().replace('_', ' ') in words
                assert profile.durability.name.lower().replace('_', ' ') in words
                assert f'keep last {profile.depth}' in words


def test_every_topic_that_the_source_names_is_on_the_page_and_the_other_way_round():
    named, written = set(), set()
    for path, tree in trees():
        if path.parent.name != 'ros' or path.name in OTHER_PROCESSES:
            continue
        written |= strings(tree)
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                second = call.args[1] if len(call.args) > 1 else None
                makes = call.func.attr in ('_publisher', 'create_publisher', 'create_subscription')
                if makes and isinstance(second, ast.Constant):
                    named.add(second.value)
    listed = {topic.name for topic in TOPICS}
    assert named <= listed, 'add the topic to depth_node/ros/interface.py, then run: make docs'
    assert listed <= written


def test_the_overrides_of_the_page_change_the_topics_of_the_node(private_network, tmp_path):
    (block,) = re.findall(r'```yaml\n(.*?)```', PAGE, re.DOTALL)
    (tmp_path / 'qos.yaml').write_text(block)
    context = rclpy.Context()
    words = ['--ros-args', '--params-file', str(tmp_path / 'qos.yaml')]
    rclpy.init(args=words, context=context)
    node = lifecycle_node.DepthNode(ScriptedPipeline().open, context=context)
    try:
        assert node.autostart()
        (points,) = [item for item in node.publishers if item.topic_name == '/points']
        assert (points.qos_profile.reliability.name, points.qos_profile.depth) == (
            'BEST_EFFORT',
            2,
        )
    finally:
        node.close()
        node.destroy_node()
        context.try_shutdown()


# ---- /diagnostics, reasons, exit codes


def pattern_of(key):
    key = re.sub(r'^(dropped|camera_info refused): .+', r'\1: REASON', key)
    return re.sub(r'^stage .+ \(ms\)$', 'stage NAME (ms)', key)


def test_the_keys_of_diagnostics_are_those_of_the_page(rig):
    running = rig(**{'node.diagnostics_period_s': 0.1}).ready().listen_to_diagnostics()
    running.send()
    running.send(encoding='nonsense')
    running.give_camera(k=[0.0] * 9)
    running.wait(
        lambda: any(
            any(pair.key.startswith('camera_info refused') for pair in message.status[0].values)
            for message in running.diagnostics
        )
    )
    shown = {pattern_of(pair.key) for pair in running.diagnostics[-1].status[0].values}
    assert shown == set(interface.DIAGNOSTICS), 'see depth_node/ros/interface.py; make docs'


def test_the_reasons_of_the_source_are_those_of_the_page():
    constants, raised = {}, set()
    everywhere = set()
    for _, tree in trees():
        everywhere |= strings(tree)
        for item in tree.body:
            if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant):
                for target in item.targets:
                    if isinstance(target, ast.Name) and target.id.isupper():
                        constants.setdefault(target.id, set()).add(item.value.value)
    for _, tree in trees():
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and call.args:
                name = getattr(call.func, 'id', getattr(call.func, 'attr', ''))
                first = call.args[0]
                if name not in ('Rejected', 'ImageRejected', 'CameraRejected', 'dropped'):
                    continue
                if isinstance(first, ast.Constant):
                    raised.add(first.value)
                elif isinstance(first, ast.Name) and first.id.isupper():
                    raised |= constants[first.id]
    assert raised >= {'too_old', 'image_encoding', 'inactive', 'camera_projection'}
    assert raised <= set(interface.REASONS), 'add it to depth_node/ros/interface.py; make docs'
    assert set(interface.REASONS) <= everywhere


def test_the_exit_codes_of_the_source_are_those_of_the_page():
    codes = {
        value
        for module in (lifecycle_node, stream, worker)
        for name, value in vars(module).items()
        if name.startswith('EXIT_')
    }
    assert codes | {0} == set(interface.EXIT_CODES)
