"""The health of the node as a diagnostic_msgs/DiagnosticArray, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticStatus
from diagnostic_msgs.msg import KeyValue

from depth_node.health import Percentiles
from depth_node.health import Report
from depth_node.health import State
from depth_node.model_folder import ModelCard

if TYPE_CHECKING:
    from depth_node.pipeline import Pipeline

_LEVELS = {
    State.OK: DiagnosticStatus.OK,
    State.DEGRADED: DiagnosticStatus.WARN,
    State.STALE: DiagnosticStatus.STALE,
    State.FAILED: DiagnosticStatus.ERROR,
}


def camera_status(
    node_name: str, camera: str, report: Report, phase: str, facts: Mapping[str, str]
) -> DiagnosticStatus:
    """Return one status with all figures of a camera.

    :param camera: its name; empty where the node has but one.
    :param phase: lifecycle state; while it is not 'active' silence is no fault.
    :param facts: further keys and values, e.g. from :func:`pipeline_facts`.
    """
    about = f'depth {camera}' if camera else 'depth'
    status = DiagnosticStatus(name=f'{node_name}: {about}', hardware_id=node_name)
    failed = report.state is State.FAILED
    if phase == 'active' or failed:
        status.level, status.message = _LEVELS[report.state], report.text
    else:
        status.level, status.message = DiagnosticStatus.OK, phase
    pairs = {'lifecycle state': phase, **dict(_figures(report)), **facts}
    status.values = [KeyValue(key=key, value=value) for key, value in pairs.items()]
    return status


def pipeline_facts(pipeline: Pipeline, scale: float = 1.0, camera: str = '') -> dict[str, str]:
    """Return what runs for one camera, on what, and under which licence.

    :param scale: the user's factor in force, depth.scale.
    :param camera: its name; empty where the node has but one.
    """
    info, card = pipeline.engine_info_of(camera), pipeline.card
    return {
        'model': card.name,
        'output': _output_of(card),
        'scale from': _scale_source(card, scale),
        'weights licence': card.weights_license,
        'model notes': card.notes,
        'engine': f'{info.name} {info.version}',
        'engine notes': '; '.join(pipeline.engine_notes),
        'precision': info.precision,
        'device': info.device,
        'network input': f'{info.input_shape[3]}x{info.input_shape[2]}',
        'parity error': f'{info.parity_error:.3g}',
        'engine build': pipeline.engine_build,
    }


def _output_of(card: ModelCard) -> str:
    """Say what the numbers of a model mean."""
    if card.output.kind == 'relative':
        return 'relative inverse depth'
    return 'metric depth' if card.is_metric else 'depth of unknown scale'


def _scale_source(card: ModelCard, scale: float) -> str:
    """Say where the metres come from."""
    if card.output.kind == 'relative':
        return 'nothing: relative inverse depth has no unit'
    if card.focal_px is None:
        source = 'nothing: the model card names no focal length'
    else:
        source = (
            f'model card (focal length {card.focal_px:g} px) and the focal length of the camera'
        )
    factors = {'factor of the card': card.depth_scale, 'depth.scale': scale}
    named = [f'{name} {factor:g}' for name, factor in factors.items() if factor != 1.0]
    return '; '.join([source, *named])


def _figures(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the counters, rates and times of a report."""
    yield 'images received', str(report.received)
    yield 'images published', str(report.published)
    for reason, count in sorted(report.drops.items()):
        yield f'dropped: {reason}', str(count)
    for reason, count in sorted(report.camera_rejections.items()):
        yield f'camera_info refused: {reason}', str(count)
    yield 'input rate (Hz)', f'{report.input_rate_hz:.1f}'
    yield 'output rate (Hz)', f'{report.output_rate_hz:.1f}'
    yield 'age since arrival p50/p95/p99 (ms)', _shown(report.age)
    yield 'age since stamp p50/p95/p99 (ms)', _shown(report.stamp_age)
    yield 'stamps', report.stamp_remark or 'of now'
    for stage, median_ms in report.stages_ms.items():
        yield f'stage {stage} (ms)', f'{median_ms:.2f}'


def _shown(figures: Percentiles | None) -> str:
    """Return three figures, or a word where there are none."""
    if figures is None:
        return 'unknown'
    return f'{figures.p50_ms:.1f}/{figures.p95_ms:.1f}/{figures.p99_ms:.1f}'
