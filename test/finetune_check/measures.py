"""What is measured without a training: what is dropped, delays, throughput, the node's output."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import altered_recordings as spoilt
import numpy as np
import torch
from finetune_start import scaled_start
from rosbags.highlevel import AnyReader

from depth_node.camera import chosen_view
from depth_node.dataset.audit_recording import audit_recording
from depth_node.dataset.caching import CacheSettings
from depth_node.dataset.caching import cache_recording
from depth_node.dataset.pairs import PairPlan
from depth_node.dataset.pairs import plan_pairs
from depth_node.dataset.scale import estimate_scales
from depth_node.dataset.sparse_depth import DEPTH_IMAGE
from depth_node.dataset.sparse_depth import STEREO
from depth_node.dataset.sparse_depth import TRACKS
from depth_node.dataset.takes import Take
from depth_node.dataset.topics import TopicChoice
from depth_node.dataset.tracks import measured_depth_m
from depth_node.finetuning.objective import LossWeights
from depth_node.finetuning.plain_step import PlainStep
from depth_node.finetuning.pose import RecordedPoses
from depth_node.finetuning.preparation import prepared
from depth_node.finetuning.reference_maps import reference_maps
from depth_node.finetuning.samples import BatchSettings
from depth_node.finetuning.samples import Footage
from depth_node.finetuning.samples import Samples
from depth_node.finetuning.start_model import StartModel
from depth_node.finetuning.step import FastStep
from depth_node.finetuning.step import chosen_precision
from depth_node.finetuning.step import trainable
from depth_node.finetuning.timing import compared
from depth_node.image_codec import decode_compressed
from depth_node.judging.models import opened_models
from depth_node.recording import open_recording
from depth_node.world.recording import IMAGE_TOPIC
from finetune_check.row import Row
from finetune_check.runs import DRIVE
from finetune_check.runs import MIXED
from finetune_check.runs import PAIR
from finetune_check.runs import Setting
from finetune_check.runs import finetuned
from finetune_check.runs import rendered

_STANDING, _TURNING = 0.2, 0.7
"""Shares of the time before which the camera stands, and after which it turns on the spot."""
_MARGIN_S = 0.3
_DELAY_MS = 80.0
_BATCH = 4


def idle_stretches(setting: Setting) -> Row:
    """Frames of standing and of turning on the spot are no targets."""
    row = Row('idle_stretches')
    recording = rendered(setting, MIXED)
    cache = cache_recording(recording, CacheSettings(((192, 256),)), setting.folder / 'cache')
    indices = range(len(cache))
    typical_m = measured_depth_m(cache, indices)
    assert typical_m is not None
    plan = plan_pairs(cache, indices, typical_m)
    times_s = (cache.stamps_ns - cache.stamps_ns[0]) / 1e9
    used = times_s[sorted(plan.targets)]
    for what, low, high in (
        ('standing', 0.0, _STANDING * MIXED.seconds - _MARGIN_S),
        ('turning', _TURNING * MIXED.seconds + _MARGIN_S, MIXED.seconds),
    ):
        row.at_least(f'frames of {what}', ((times_s >= low) & (times_s <= high)).sum(), 10)
        row.exactly(f'targets among them, {what}', ((used >= low) & (used <= high)).sum(), 0)
    between = (times_s > _STANDING * MIXED.seconds) & (times_s < _TURNING * MIXED.seconds)
    row.at_least('share of the driving that is used', len(used) / between.sum(), 0.7)
    return row


def measured_scale(setting: Setting) -> Row:
    """Metres by tracks and odometry alone, through a bent lens, beside the true depth."""
    row = Row('measured_scale')
    recording = rendered(setting, DRIVE)
    start = StartModel.open(str(scaled_start(setting.folder / 'start', 1 / 3).path))
    cache = cache_recording(recording, CacheSettings(start.sizes), setting.folder / 'cache')
    (made,) = prepared(
        start, [(Take(recording, 'drive', TopicChoice()), cache)], height_m=None, rescale=True
    ).recordings
    estimates = estimate_scales(cache, made.plan, start.depth_m(cache.camera))
    for item in estimates:
        row.told(f'scale by {item.kind}', item.scale)
    (tracks,) = [item for item in estimates if item.kind == TRACKS]
    row.at_most('tracks against true depth at the same places', abs(tracks.direct - 1.0), 0.03)
    row.told('points of tracks', tracks.samples)
    return row


def stereo(setting: Setting) -> Row:
    """Metres by a second camera, through bent lenses, beside the true depth at the same places."""
    row = Row('stereo')
    recording = rendered(setting, PAIR)
    start = StartModel.open(str(scaled_start(setting.folder / 'start', 1 / 3).path))
    choice = TopicChoice(image=IMAGE_TOPIC, odometry='')
    cache = cache_recording(
        recording, CacheSettings(start.sizes, choice=choice), setting.folder / 'cache'
    )
    plan = PairPlan(dict.fromkeys(range(len(cache)), ()))
    estimates = estimate_scales(cache, plan, start.depth_m(cache.camera))
    found = {item.kind: item for item in estimates}
    row.exactly('sources of stereo depth', STEREO in found, 1)
    row.at_most('stereo against true depth', abs(found[STEREO].direct - 1.0), 0.02)
    row.told('scale by stereo', found[STEREO].scale)
    row.told('scale by depth images', found[DEPTH_IMAGE].scale)
    apart = found[STEREO].scale / found[DEPTH_IMAGE].scale - 1.0
    row.told('scales apart, of different places', apart)
    frames = [[part for part in cache.sparse_all(k) if part.source.kind == STEREO] for k in
              range(len(cache))]  # fmt: skip
    row.at_least('share of the frames with stereo depth', np.mean([*map(bool, frames)]), 0.9)
    points = [sum(map(len, parts)) for parts in frames]
    row.at_least('points per frame, median', float(np.median(points)), 500)
    return row


def image_delay(setting: Setting) -> Row:
    """A delay of the images is found."""
    row = Row('image_delay')
    late = spoilt.altered(
        rendered(setting, MIXED), setting.folder / 'late', spoilt.late_images(80_000_000)
    )
    audit = audit_recording(late)
    found_ms = audit.clock_offset.offset_s * 1e3 if audit.clock_offset else float('nan')
    row.told('delay found, of 80 ms', found_ms)
    row.at_most('error, ms', abs(found_ms - _DELAY_MS), 15.0)
    row.exactly('applied', audit.applied_offset_ns != 0, 1)
    return row


def throughput(setting: Setting) -> Row:
    """Images per second of a step, beside a plain implementation of the same losses."""
    row = Row('throughput')
    recording = rendered(setting, MIXED)
    start = StartModel.open(str(scaled_start(setting.folder / 'start', 1.0).path))
    cache = cache_recording(recording, CacheSettings(start.sizes), setting.folder / 'cache')
    typical_m = measured_depth_m(cache, range(len(cache)))
    assert typical_m is not None
    targets = plan_pairs(cache, range(len(cache)), typical_m).targets
    maps = reference_maps(
        cache, sorted(targets), start.inverse_depth(cache.camera), setting.folder / 'maps', 'start'
    )
    settings = BatchSettings(size=_BATCH)
    batch = Samples([Footage(cache, targets, start=maps)], settings).batch(0)
    network = trainable(copy.deepcopy(start.network).requires_grad_(True))
    weights, meaning = LossWeights(sparse=0.2), start.meaning()
    # each has its own network: the fast step keeps its weights in another order of memory
    other, third = copy.deepcopy(network), copy.deepcopy(network)
    precision = chosen_precision(third, 'auto', start.sizes[0])
    steps = {
        'fast': FastStep(network, meaning, RecordedPoses(), weights),
        'default': FastStep(third, meaning, RecordedPoses(), weights, precision),
        'plain': PlainStep(other, meaning, RecordedPoses(), weights, start.network),
    }
    losses = {name: float(step(batch).loss.detach()) for name, step in steps.items()}
    row.at_most('losses apart', abs(losses['fast'] / losses['plain'] - 1.0), 1e-3)
    row.told('losses apart, default', abs(losses['default'] / losses['plain'] - 1.0))
    learning = [*network.parameters(), *other.parameters(), *third.parameters()]
    times = compared(steps, learning, batch)
    plain = times.pop('plain')
    row.told('threads', torch.get_num_threads())
    row.told('images per second, plain', plain.images_per_s)
    for name, least in (('fast', None), ('default', 2.0)):
        shown = f'{name} ({"float32" if name == "fast" else precision})'
        row.told(f'images per second, {shown}', times[name].images_per_s)
        row.told(f'{shown} / plain, best', plain.best_s / times[name].best_s)
        ratio = plain.median_s / times[name].median_s
        if least is None:
            row.told(f'{shown} / plain, medians', ratio)
        else:
            row.at_least(f'{shown} / plain, medians', ratio, least)
    return row


def node_output(setting: Setting) -> Row:
    """What the node publishes with an exported model is what the evaluation judged."""
    row = Row('node_output')
    recording = rendered(setting, MIXED)
    start = scaled_start(setting.folder / 'start', 1.0).path
    run = finetuned(setting, recording, start, 'run', steps=min(setting.steps, 20))
    model = run.root / 'candidate'
    published = _published(recording, model)
    apart, compared_px = [], 0
    with opened_models([str(model)]) as (judged,), open_recording(recording) as opened:
        topics = opened.camera_topics()
        fields = opened.first(topics.camera_info)
        for record in opened.records([topics.image]):
            content = record.content
            if content.stamp_ns not in published:
                continue
            rgb = decode_compressed(content)
            view = chosen_view(fields, rgb.shape[1], rgb.shape[0], 'auto', False)
            depth_m = _judged(judged, rgb, content, view)
            other = published[content.stamp_ns]
            known = np.isfinite(depth_m) & np.isfinite(other)
            row_same = (np.isfinite(depth_m) == np.isfinite(other)).mean()
            apart.append((float(np.abs(other[known] / depth_m[known] - 1).max()), row_same))
            compared_px += int(known.sum())
    row.at_least('images compared', len(apart), 5)
    row.told('pixels compared', compared_px)
    row.at_most('largest relative difference', max(item[0] for item in apart), 1e-3)
    row.at_least('share of pixels known to both or neither', min(item[1] for item in apart), 1.0)
    return row


def _judged(judged: Any, rgb: np.ndarray, content: Any, view: Any) -> np.ndarray:
    from depth_node.frames import CameraImage

    frame = judged.process(CameraImage(rgb, content.stamp_ns, content.frame_id), view)
    return np.array(frame.depth_m)


def _published(recording: Path, model: Path) -> dict[int, np.ndarray]:
    """Send some images through the node's stream, worker and outputs; return depth by stamp."""
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import CameraInfo
    from sensor_msgs.msg import CompressedImage
    from soak.core import Core

    found: dict[int, np.ndarray] = {}

    def keep(message: Any) -> None:
        stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        depth = np.frombuffer(message.data, np.float32)
        found[stamp_ns] = depth.reshape(message.height, message.width).copy()

    core = Core(
        model, keep, **{
            'depth.edge_step': 0.0, 'input.transport': 'compressed', 'input.max_age_s': 60.0,
        },
    )  # fmt: skip
    core.activate()
    try:
        with AnyReader([recording]) as reader:
            for item, stamp_ns, data in reader.messages():
                kind = {spoilt.CAMERA_INFO: CameraInfo, spoilt.IMAGE: CompressedImage}
                if item.topic not in kind or len(found) >= 10:
                    continue
                message = deserialize_message(bytes(data), kind[item.topic])
                core.set_clock(max(core.node.now_ns, stamp_ns))
                if item.topic == spoilt.CAMERA_INFO:
                    core.node.deliver_camera(message)
                else:
                    core.node.deliver_image(message)
                    core.settle(60.0)
    finally:
        core.close()
    return found
