"""A model folder and a recording -> a new model folder whose sizes have graphs in int8, or no."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from depth_node import model_folder
from depth_node.engines.graph_files import checked_graph
from depth_node.engines.graph_files import external_files
from depth_node.errors import ModelError
from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.model_folder import WEIGHTS_NAME
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.model_folder.card import LARGEST_INT8_ERROR
from depth_node.quantization.calibration import Calibration
from depth_node.quantization.judging import Judgement
from depth_node.quantization.judging import judge
from depth_node.quantization.pictures import Pictures
from depth_node.quantization.pictures import Progress
from depth_node.quantization.pictures import read_pictures
from depth_node.quantization.qdq import WEIGHT_BITS
from depth_node.quantization.qdq import FloatGraph
from depth_node.quantization.qdq import write_graph

METRICS_KEY = 'int8'
"""Under which the figures stand in the metrics of a card."""
_MAX_IMAGES = 5000


@dataclass(frozen=True)
class QuantizeSettings:
    """How a model is quantised."""

    images: int = 200
    """Images taken from the recording, for calibration and judgement together."""
    topic: str | None = None
    """Image topic; None where the recording has one camera."""
    limit: float = 0.02
    """Largest median relative depth error on held-out images."""
    weight_bits: int = 7
    """7, which every processor computes alike, or 8."""
    threads: int = 0
    """CPU threads; 0 lets the libraries decide."""


def quantize(
    folder: ModelFolder,
    recording: Path,
    out: Path,
    settings: QuantizeSettings,
    *,
    report: Callable[[Sequence[Judgement]], None] = lambda judgements: None,
    progress: Progress = lambda step, done, total: None,
) -> ModelFolder:
    """Write a copy of a model that has an int8 graph at every input size, or nothing.

    The first part of the recording calibrates, the last one judges: int8 against float32 on this
    machine.  Sizes that the recording's camera does not use are calibrated with the part of its
    images that has their aspect.

    :param folder: a checked model; it is not changed.
    :param out: folder to make; its name becomes the model's.
    :param report: called with the judgements, one per input size, before they are weighed.
    :returns: the new folder; its card tells the figures.
    :raises SettingsError: for settings out of range.
    :raises RecordingError: for a recording that cannot be used.
    :raises ModelError: when the error exceeds the limit, or there is nothing to quantise.
    :raises EngineError: when OpenVINO does not compute the graphs in int8.
    :raises MissingPackage: when onnx, onnxruntime, openvino or rosbags is not installed.
    """
    _check(settings)
    card = _plain_card(folder.card, out.name)
    pictures = read_pictures(recording, card, settings.images, settings.topic, progress)
    work = _Work(folder, pictures, settings, progress)
    named = tuple(replace(size, graph_int8=f'{_stem(size)}.onnx') for size in card.inputs)

    def inspect(made: ModelFolder) -> ModelCard:
        judgements = work.judgements(made)
        report(judgements)
        _weigh(card.name, judgements, settings.limit)
        return _with_figures(made.card, judgements, pictures, recording, settings)

    return model_folder.write(out, replace(card, inputs=named), work.fill, inspect=inspect)


class _Work:
    """The steps that fill and judge the new folder."""

    def __init__(
        self,
        folder: ModelFolder,
        pictures: Pictures,
        settings: QuantizeSettings,
        progress: Progress,
    ) -> None:
        self._folder = folder
        self._pictures = pictures
        self._settings = settings
        self._progress = progress

    def fill(self, out: Path) -> None:
        """Copy what the model has and add the graphs in int8."""
        kept = _files_without_int8(self._folder)
        for name in kept:
            shutil.copyfile(self._folder.file(name), out / name)
        stored = [name for name in kept if name.endswith('.safetensors')]
        for index, size in enumerate(self._folder.card.inputs):
            graph = FloatGraph(out / size.graph, self._settings.weight_bits)
            images = self._pictures.calibration(index)
            calibration = Calibration(
                out,
                self._folder.card,
                size,
                images,
                threads=self._settings.threads,
                tick=self._ticker(f'calibrate {size.width}x{size.height}', 2 * len(images)),
            )
            ranges = calibration.ranges(graph)
            model = graph.quantized(ranges, calibration.shifts(graph, ranges))
            path = out / f'{_stem(size)}.onnx'
            written = write_graph(model, path, f'{_stem(size)}.safetensors', stored)
            stored += [made.name for made in written if made != path]

    def judgements(self, made: ModelFolder) -> list[Judgement]:
        """Judge every input size of the new folder."""
        found = []
        for index, size in enumerate(made.card.inputs):
            images = self._pictures.held_out(index)
            found.append(
                judge(
                    made,
                    size,
                    images,
                    added_bytes=sum(
                        record.size_bytes
                        for name, record in made.card.files.items()
                        if Path(name).stem == _stem(size)
                    ),
                    threads=self._settings.threads,
                    tick=self._ticker(f'judge {size.width}x{size.height}', len(images)),
                )
            )
        return found

    def _ticker(self, step: str, total: int) -> Callable[[], None]:
        """Return a function that reports one more image done."""
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            self._progress(step, done, total)

        return tick


def _stem(size: InputSpec) -> str:
    """Return the name, without its ending, of the files of an input size in int8."""
    return f'graph_{size.width}x{size.height}_int8'


def _check(settings: QuantizeSettings) -> None:
    for name, value, fine, expected in (
        ('images', settings.images, 1 <= settings.images <= _MAX_IMAGES, f'1 to {_MAX_IMAGES}'),
        ('limit', settings.limit, 0.0 < settings.limit <= 1.0, 'above 0, to 1'),
        ('weight bits', settings.weight_bits, settings.weight_bits in WEIGHT_BITS, '7 or 8'),
        ('threads', settings.threads, 0 <= settings.threads <= 256, '0 to 256'),
    ):
        if not fine:
            raise SettingsError(f'quantize: {name}', quoted(value), expected)


def _plain_card(card: ModelCard, name: str) -> ModelCard:
    """Return the card of a copy without int8, under another name."""
    inputs = tuple(replace(size, graph_int8=None, int8_error=None) for size in card.inputs)
    metrics = {key: value for key, value in card.metrics.items() if key != METRICS_KEY}
    return replace(card, name=name, inputs=inputs, metrics=metrics, files={})


def _files_without_int8(folder: ModelFolder) -> list[str]:
    """Name the files of a model that anything but int8 needs."""
    needed = {WEIGHTS_NAME}
    for size in folder.card.inputs:
        needed.add(size.golden)
        for precision in size.precisions:
            if precision != 'int8':
                graph = checked_graph(folder, size, precision)
                needed |= {graph.name, *external_files(graph)}
    return sorted(needed)


def _weigh(name: str, judgements: Sequence[Judgement], limit: float) -> None:
    """Refuse a graph whose error is too large, with the figures."""
    for found in judgements:
        size = f'{found.width}x{found.height}'
        if found.median_error > limit:
            raise ModelError(
                f'int8 of model {name}',
                f'a median relative depth error of {100 * found.median_error:.2g} % on held-out '
                f'images at {size} (95 % of pixels below {100 * found.p95_error:.2g} %, largest '
                f'{100 * found.max_error:.2g} %)',
                f'at most {100 * limit:g} %',
                'Nothing was written. Calibrate with a longer recording of the places where the '
                'robot works, or use another precision.',
            )
        if found.golden_error > LARGEST_INT8_ERROR or not math.isfinite(found.golden_error):
            raise ModelError(
                f'int8 of model {name}',
                f'a golden output that is off by {found.golden_error:.2g} standard deviations '
                f'at {size}',
                f'at most {LARGEST_INT8_ERROR:g}',
                'Nothing was written.',
            )


def _with_figures(
    card: ModelCard,
    judgements: Sequence[Judgement],
    pictures: Pictures,
    recording: Path,
    settings: QuantizeSettings,
) -> ModelCard:
    """Write what was measured into the card."""
    sizes = [(size.width, size.height) for size in card.inputs]
    width, height = sizes[pictures.camera_size]
    told: dict[str, object] = {
        'calibrated_with': recording.resolve().name,
        'calibration_images': pictures.calibration_count,
        'held_out_images': len(pictures.stamps_ns) - pictures.calibration_count,
        'size_of_its_camera': f'{width}x{height}',
        'weight_bits': settings.weight_bits,
    }
    told |= {f'{found.width}x{found.height}': found.figures() for found in judgements}
    inputs = tuple(
        replace(size, int8_error=max(float(f'{found.golden_error:.4g}'), 1e-6))
        for size, found in zip(card.inputs, judgements, strict=True)
    )
    return replace(card, inputs=inputs, metrics={**card.metrics, METRICS_KEY: told})
