"""The report: one page that needs nothing else, runs nothing, and lets nothing from outside in."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from depth_node.judging.bootstrap import BlockSettings
from depth_node.judging.comparison import compare
from depth_node.judging.gate import Outcome
from depth_node.judging.gate import Verdict
from depth_node.judging.gate import gate
from depth_node.judging.judgement import Constants
from depth_node.judging.judgement import Judgement
from depth_node.judging.judgement import series_of
from depth_node.judging.pictures import change_picture
from depth_node.judging.pictures import data_uri
from depth_node.judging.pictures import depth_limits
from depth_node.judging.pictures import depth_picture
from depth_node.judging.pictures import error_picture
from depth_node.judging.report import FrameShown
from depth_node.judging.report import ModelRecord
from depth_node.judging.report import Plot
from depth_node.judging.report import RunReport
from depth_node.judging.report import ScaleRow
from depth_node.judging.report import page
from depth_node.svg import lines

T0 = 1_700_000_000_000_000_000
EVIL = '<script>alert("x")</script><img src=http://evil/x.png onerror=y>\'&'


def judgement(name: str, abs_rel: float) -> Judgement:
    noise = np.random.default_rng(0).normal(0, 0.01, 200)
    names = ('metric.abs_rel', 'median.abs_rel', 'scale')
    series = {
        item: series_of([(EVIL, T0 + k * 10**8, abs_rel + float(noise[k])) for k in range(200)])
        for item in names
    }
    constants = {EVIL: Constants(1.5, 0.3, 0.4, 0.2, 0.1, 0.9)}
    return Judgement(name, False, series, constants, 'ab' * 32, (EVIL,))


def shown(reference: bool = True) -> FrameShown:
    depth = np.linspace(1, 5, 24 * 32, dtype=np.float32).reshape(24, 32)
    truth = np.where(depth > 4, np.nan, depth).astype(np.float32)
    rgb = np.full((24, 32, 3), 90, np.uint8)
    return FrameShown(EVIL, rgb, depth, depth * 1.2, truth if reference else None)


def full() -> RunReport:
    before, after = judgement(EVIL, 0.5), judgement('after' + EVIL, 0.4)
    comparison = compare(before, after)
    return RunReport(
        title='Run ' + EVIL,
        command='finetune ' + EVIL,
        verdict=gate(comparison),
        judgements=(before, after),
        comparison=comparison,
        audits={EVIL: {EVIL: [EVIL, {'rate': math.nan, 'n': np.int64(3)}], 'usable': True}},
        dropped={EVIL: {EVIL: 7, 'standing': 12}},
        plots=(Plot(EVIL, EVIL, {EVIL: [(0.0, 1.0), (1.0, math.nan), (2.0, 0.5)]}),),
        scales=(ScaleRow(EVIL, math.nan, 0.1, 3, 1.0, False, EVIL, True),),
        frames=(shown(),),
        worst=(shown(False),),
        models=(ModelRecord('before', EVIL, {EVIL: EVIL}),),
        versions={EVIL: EVIL},
        notes=(EVIL,),
    )


class Reader(HTMLParser):
    """Collects tags, attributes and what is not closed."""

    VOID = ('meta', 'img', 'br')

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_nothing_from_outside_becomes_a_tag_and_all_of_it_can_be_read():
    text = page(full())
    reader = parsed(text)
    names = {tag for tag, _ in reader.tags}
    assert not names & {'script', 'iframe', 'link', 'object', 'form', 'base'}
    for _, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith('on')]
    assert text.count('&lt;script&gt;') >= 18


def test_the_page_asks_the_network_for_nothing():
    text = page(full())
    for tag, attributes in parsed(text).tags:
        for name in ('src', 'href', 'action', 'data'):
            value = attributes.get(name)
            assert value is None or value.startswith('data:image/jpeg;base64,'), (tag, value)
    assert 'url(' not in text and '@import' not in text
    policy = [a['content'] for t, a in parsed(text).tags if 'http-equiv' in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_pictures_of_a_frame_are_image_before_after_change_reference_and_errors():
    pictures = [a for tag, a in parsed(page(full())).tags if tag == 'img']
    words = [picture['alt'].split(',')[0].split(':')[0] for picture in pictures]
    assert words[:5] == ['image', 'before', 'after', 'change', 'reference']
    assert words[5] == 'error before 0 %' and words[6] == 'error after 20 %'
    assert words[7:] == ['image', 'before', 'after', 'change']
    data = base64.b64decode(pictures[0]['src'].partition(',')[2])
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (240, 320, 3) and abs(int(decoded.mean()) - 90) <= 2


def test_the_verdict_its_reasons_and_the_figures_stand_at_the_top():
    text = page(full())
    head = text[: text.index('<h2>')]
    assert 'Improved: the new model was written' in head and '20 % less' in head
    assert '-20 %' in head and '0.500 before, 0.400 after' in head
    refused = RunReport('t', 'c', Verdict(Outcome.NOT_IMPROVED, 'x', ('because of rain',)))
    head = page(refused)
    assert 'the start model was kept' in head and 'because of rain' in head


def test_a_run_that_ended_early_has_a_page_without_empty_sections():
    text = page(RunReport('t', 'c', Verdict(Outcome.UNUSABLE, '', ('no motion',))))
    parsed(text)
    assert re.findall('<h2>(.*?)</h2>', text) == ['How this was made']


def test_the_json_says_the_same_without_pictures_and_without_nan():
    assert page(full()).startswith('<!doctype html>')
    text = json.dumps(full().to_json(), allow_nan=False)
    value = json.loads(text)
    assert value['verdict']['outcome'] == 'improved' and value['verdict']['exit_code'] == 0
    assert value['comparison']['changes']['metric.abs_rel']['better'] is True
    assert value['scales'][0]['scale'] is None and value['dropped'][EVIL]['standing'] == 12
    assert value['audits'][EVIL][EVIL][1] == {'rate': None, 'n': 3}
    assert Judgement.from_json(value['judgements'][1]).mean('metric.abs_rel') == pytest.approx(
        0.4, abs=0.01
    )
    assert 'base64' not in text


def test_intervals_in_the_table_stand_on_the_blocks_that_the_page_names():
    cell = re.compile(r'<td>0\.[45]\d\d \[0\.[45]\d\d, ')
    for block_s, intervals in ((1.0, True), (30.0, False)):  # of 20 s: 20 blocks, or 1
        report = replace(full(), blocks=BlockSettings(block_s=block_s))
        assert bool(cell.search(page(report))) is intervals


def test_long_texts_and_endless_lists_are_cut():
    report = RunReport(
        't', 'c' * 5000, Verdict(Outcome.UNUSABLE, '', ()), audits={'a': {'stamps': [1] * 9999}}
    )
    text = page(report)
    assert 'c' * 1997 + '...' in text and 'c' * 2001 not in text
    assert '... 9959 more' in text and len(text) < 20_000


def test_depth_outside_the_colours_and_unknown_depth_are_drawn():
    depth = np.array([[np.nan, 0.0, 1.0, 3.0, np.inf]], np.float32)
    limits = depth_limits([depth])
    assert limits[0] == pytest.approx(1.04) and limits[1] == pytest.approx(2.96)
    picture = depth_picture(depth, limits)
    assert (picture[0, 0] == 48).all() and (picture[0, 3] == picture[0, 4]).all()
    assert picture[0, 2, 2] > picture[0, 2, 0] and picture[0, 3, 0] > picture[0, 3, 2]
    assert depth_limits([np.full((2, 2), np.nan, np.float32)]) == (1.0, 10.0)
    assert depth_limits([np.full((2, 2), 2.0, np.float32)]) == (2.0, 2.1)


def test_errors_and_changes_have_the_colours_that_the_captions_say():
    truth = np.array([[1.0, 1.0, np.nan]], np.float32)
    error = error_picture(np.array([[1.0, 1.5, 1.0]], np.float32), truth)
    assert error[0, 0].max() < 10 and error[0, 1, 0] > 240 and (error[0, 2] == 48).all()
    change = change_picture(np.ones((1, 4), 'f4'), np.array([[1.0, 0.5, 2.0, np.nan]], 'f4'))
    assert change[0, 0].tolist() == [245, 245, 245] and (change[0, 3] == 48).all()
    assert change[0, 1, 2] > change[0, 1, 0] and change[0, 2, 0] > change[0, 2, 2]


def test_large_pictures_shrink_to_a_column():
    data = base64.b64decode(data_uri(np.zeros((960, 1280, 3), np.uint8)).partition(',')[2])
    shape = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape
    assert shape == (240, 320, 3)


def test_a_curve_is_broken_where_a_number_is_missing_and_thinned_where_it_is_long():
    broken = lines('t', 'x', {'a': [(0, 1), (1, 2), (2, math.nan), (3, 1), (4, math.inf)]})
    path = re.search('<path d="([^"]+)" fill="none"', broken)[1]
    assert re.sub('[^ML]', '', path) == 'MLM'
    many = [(float(k), float(k)) for k in range(10_001)]
    path = re.search('<path d="([^"]+)" fill="none"', lines('t', 'x', {'a': many}))[1]
    assert path.count('L') < 1000 and path.endswith('880.0 83.8')
    assert 'no figures' in lines('t', 'x', {'a': [(0, math.nan)]})
    assert 'no figures' in lines('t', 'x', {})
