"""After a training with recorded poses the scale is measured again, and mended where it is off."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from dataset_samples import BENT
from dataset_samples import HIDDEN
from dataset_samples import TrueModel
from dataset_samples import cached

from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.tracks import SOURCE
from depth_node.dataset.tracks import measured_depth_m
from depth_node.finetuning import kept_scale
from depth_node.finetuning.kept_scale import settled_scale


def settled(monkeypatch: pytest.MonkeyPatch, factor: float, chosen: str) -> Any:
    cache = cached(BENT, HIDDEN)
    plan = plan_pairs(cache, range(len(cache)), measured_depth_m(cache, range(len(cache))))
    start = SimpleNamespace(meaning=lambda scale: None)
    preparation = SimpleNamespace(
        scale=3.0,
        chosen=SimpleNamespace(source=chosen) if chosen else None,
        recordings=(SimpleNamespace(cache=cache, plan=plan),),
    )
    monkeypatch.setattr(kept_scale, 'depth_m_by', lambda *_: TrueModel(BENT, cache, factor=factor))
    return settled_scale(start, None, preparation)


def test_a_scale_that_is_off_after_training_is_mended_and_said(monkeypatch):
    found = settled(monkeypatch, 0.9, f'{SOURCE.kind} {SOURCE.topic}')
    assert found.factor == found.measured == pytest.approx(1 / 0.9, abs=0.03)
    assert found.low < found.factor < found.high
    assert 'tracks' in found.told() and 'applied' in found.told()


@pytest.mark.parametrize('chosen', ['', '/scan of another robot'])
def test_without_the_source_that_set_the_scale_it_is_left_as_it_is(monkeypatch, chosen):
    found = settled(monkeypatch, 0.9, chosen)
    assert found.factor == 1.0 and found.told() == ''
