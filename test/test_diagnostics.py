"""What a person needs to act on a fault stands on /diagnostics of the running node."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip('rclpy')

from scripted_pipeline import ScriptedPipeline

from depth_node.ros import diagnostics

# what the issue names, and the keys under which a user finds it
WANTED = {
    'state': ('lifecycle state',),
    'rate': ('input rate (Hz)', 'output rate (Hz)'),
    'age p50/p99': ('age since arrival p50/p95/p99 (ms)', 'age since stamp p50/p95/p99 (ms)'),
    'stage times': ('stage network (ms)', 'stage publish (ms)'),
    'engine': ('engine', 'engine build', 'device'),
    'precision': ('precision',),
    'parity error': ('parity error',),
    'model and its licence': ('model', 'weights licence'),
    'scale source': ('scale from',),
    'camera_info state': ('camera_info', 'camera_info age (s)', 'intrinsics from'),
}


def facts_of(scale: float = 1.0, **changes: object) -> dict[str, str]:
    """Return what is said of a model whose card differs."""

    class Changed:
        engine_notes = ()
        engine_build = ''
        engine_info_of = ScriptedPipeline().engine_info_of
        card = replace(ScriptedPipeline().card, **changes)

    return diagnostics.pipeline_facts(Changed(), scale)


def test_every_figure_that_a_person_needs_is_on_diagnostics_of_a_node_at_work(rig):
    it = rig(**{'node.diagnostics_period_s': 0.1}).listen_to_diagnostics()
    it.listen()
    it.give_camera()
    shown: dict[str, str] = {}

    def complete() -> bool:
        it.send()
        for message in it.diagnostics[-1:]:
            shown.update({pair.key: pair.value for pair in message.status[0].values})
        return all(shown.get(key) for keys in WANTED.values() for key in keys if _filled(key))

    it.wait(complete)
    assert not [key for keys in WANTED.values() for key in keys if key not in shown]


def _filled(key: str) -> bool:
    """Tell whether a key has something to say at all times; nothing may be being built."""
    return key != 'engine build'


def test_the_licence_of_the_weights_is_that_of_the_card():
    assert facts_of(weights_license='CC-BY-NC-4.0')['weights licence'] == 'CC-BY-NC-4.0'


@pytest.mark.parametrize(
    ('changes', 'scale', 'words', 'absent'),
    [
        ({'focal_px': 200.0}, 1.0, ('model card', '200 px'), ('factor', 'depth.scale')),
        ({'focal_px': 200.0, 'depth_scale': 5.4}, 1.3, ('of the card 5.4', 'depth.scale 1.3'), ()),
        ({'focal_px': None}, 1.0, ('nothing', 'no focal length'), ('px',)),
    ],
)  # fmt: skip
def test_where_the_metres_come_from_is_told(changes, scale, words, absent):
    said = facts_of(scale, **changes)['scale from']
    assert all(word in said for word in words), said
    assert not any(word in said for word in absent), said
