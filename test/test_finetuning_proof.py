"""What a proof rests on where recordings differ in what they offer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from judging_samples import STEP_NS
from judging_samples import T0
from judging_samples import write
from test_judging_judge import model

from depth_node.dataset.takes import Take
from depth_node.dataset.topics import TopicChoice
from depth_node.finetuning import proof
from depth_node.judging.scenes import JudgeSettings

pytest.importorskip('rosbags')

COUNT = 20


def prepared(path, name):
    return SimpleNamespace(
        take=Take(path, name, TopicChoice()),
        path=path,
        name=name,
        cache=SimpleNamespace(stamps_ns=T0 + np.arange(COUNT) * STEP_NS),
        split=SimpleNamespace(held_out=tuple(range(16, COUNT))),
    )


@pytest.mark.parametrize(
    ('changes', 'why'),
    [
        ({'skip': range(16, COUNT)}, '4 without reference'),  # the depth ended before
        ({'depth_frame': 'beside'}, 'registered to the colour image'),
    ],
)
def test_a_take_whose_depth_says_nothing_of_held_out_time_leaves_the_others_their_reference(
    tmp_path, changes, why
):
    good = prepared(write(tmp_path / 'good', COUNT), 'good')
    poor = prepared(write(tmp_path / 'poor', COUNT, **changes), 'poor')
    models = (model('before', 0.5), model('after'))
    for items in ([good, poor], [poor, good]):
        before, after = proof._by_reference(models, items, JudgeSettings(), lambda *_: None)
        assert before.mean('metric.abs_rel') == pytest.approx(0.5)
        assert after.series['metric.abs_rel'].recordings == ('good',)
        assert any(note.startswith('poor is judged') and why in note for note in after.notes)
    before, _ = proof._by_reference(models, [poor], JudgeSettings(), lambda *_: None)
    assert not before.series and len(before.notes) == 1
