"""The first page: what it claims is what the result files, the card and the code say."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from depth_node import model_folder
from depth_node.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
RESULTS = ROOT / 'benchmarks' / 'results'


def test_figures_of_the_node_are_those_of_the_committed_result() -> None:
    node = json.loads((RESULTS / 'node.json').read_text())['rows'][0]
    for quoted in (
        f'{node["depth_age_p50_ms"]:.1f} ms',
        f'{node["network_ms"]:.1f} ms',
        f'{node["peak_rss_mib"]:.0f} MiB',
        f'{node["first_depth_s"]:.1f} s',
        f'{node["depths"]} of {node["played"]}',
    ):
        assert quoted in README, quoted
    assert not node['torch_loaded']
    assert node['played'] >= node['received'] >= node['depths']


def test_start_memory_and_frame_are_those_of_the_committed_results() -> None:
    node, alone = json.loads((RESULTS / 'node.json').read_text())['rows']
    (frame,) = (
        row
        for row in json.loads((RESULTS / 'frame.json').read_text())['rows']
        if row['encoding'] == 'rgb8'
    )
    for quoted in (
        f'{node["first_depth_live_s"]["median_s"]:.1f} s where the camera runs already',
        f'{alone["peak_rss_mib"]:.0f} MiB without clouds',
        f'takes {frame["rest"]["median_ms"]:.1f} ms of one core',
    ):
        assert quoted in README, quoted


def test_figures_of_the_engines_are_those_of_the_committed_result() -> None:
    rows = json.loads((RESULTS / 'engines-cpu.json').read_text())['rows']
    best = {
        (row['model'], row['engine'], row['precision']): row['time']['min_ms']
        for row in rows
        if row['time'] is not None
    }
    base = best['lite-mono:base', 'openvino', 'f32']
    eager = best['lite-mono:base', 'eager', 'f32']
    monodepth2 = best['monodepth2:resnet18', 'openvino', 'f32']
    words = ' '.join(README.split())
    for quoted in (
        f'takes {base:.1f} ms in OpenVINO, {eager / base:.1f} times as fast as its own code in '
        f'eager PyTorch ({eager:.1f}; '
        f'{best["lite-mono:base", "eager-channels-last", "f32"]:.1f} with channels last)',
        f'{monodepth2 / base:.2f} times as fast as Monodepth2 ({monodepth2:.1f})',
        f'in bf16 {best["lite-mono:base", "openvino", "bf16"]:.1f} ms',
    ):
        assert quoted in words, quoted


def test_figures_of_the_rewritten_network_are_those_of_the_committed_result() -> None:
    rows = json.loads((RESULTS / 'rewriting.json').read_text())['rows']
    times = {(row['variant'], row['engine'], row['graph']): row for row in rows}
    for (variant, engine, graph), row in times.items():
        if graph == 'rewritten':
            before = times[variant, engine, 'reference']['time']['min_ms']
            after = row['time']['min_ms']
            line = f'| {variant} | {engine} | {before:.1f} | {after:.1f} | {before / after:.2f} |'
            assert line in README, line


def test_figures_of_the_bundled_model_are_those_of_its_result_and_of_its_card() -> None:
    card = model_folder.read(model_folder.find(Settings().model.name)).card
    rows = json.loads((RESULTS / 'bundled.json').read_text())['rows']
    assert len(rows) >= 3
    for row in rows:
        values = (row['metric']['abs_rel'], row['constants']['abs_rel'], row['scaled']['abs_rel'])
        told = f'| {row["data"]} | ' + ' | '.join(f'{value:.3f}' for value in values)
        assert told in README, told
        figures = card.metrics[row['data']]
        assert isinstance(figures, dict)
        assert figures['abs_rel'] == pytest.approx(row['metric']['abs_rel'], abs=1e-3)
    assert card.weights_license in README


def test_the_bundled_model_is_at_most_12_megabytes() -> None:
    folder = model_folder.find(Settings().model.name)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000


def test_every_command_and_every_link_leads_somewhere() -> None:
    for module in re.findall(r'python -m (depth_node[\w.]*)', README):
        assert importlib.util.find_spec(module) is not None, module
    for link in re.findall(r'\]\((?!http)([^)#]+)\)', README):
        assert (ROOT / link).exists(), link
    targets = re.findall(r'^([a-z]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    for target in re.findall(r'^`?make ([a-z]+)', README, re.MULTILINE):
        assert target in targets, target
