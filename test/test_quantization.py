"""int8: calibrated on what the node sees, judged on what calibration never saw, or refused."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depth_node import camera
from depth_node import image_codec
from depth_node import model_folder
from depth_node.engines import Engine
from depth_node.engines.graph_files import checked_graph
from depth_node.engines.graph_files import external_files
from depth_node.engines.openvino_engine import OpenVinoEngine
from depth_node.engines.parity import Disagreement
from depth_node.engines.selection import ORDER
from depth_node.engines.selection import open_engine
from depth_node.errors import EngineError
from depth_node.errors import ModelError
from depth_node.errors import RecordingError
from depth_node.errors import SettingsError
from depth_node.frames import CameraFields
from depth_node.frames import CameraImage
from depth_node.frames import CompressedImage
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.networks import make_model as maker
from depth_node.pipeline import Pipeline
from depth_node.quantization import judging
from depth_node.quantization import quantize as quantizer
from depth_node.quantization.calibration import Calibration
from depth_node.quantization.pictures import read_pictures
from depth_node.quantization.quantize import QuantizeSettings
from depth_node.quantization.quantize import quantize
from depth_node.recording import open_recording
from depth_node.recording.writer import RecordingWriter
from depth_node.settings import settings_from
from depth_node.tools import models
from depth_node.world import recording as world

BUNDLED = Path(__file__).parent.parent / 'models' / 'lite-mono-small-world'
FRAMES = 12
WIDTH, HEIGHT = 160, 120
# pictures of nothing, at many times the speed of a rendered scene
QUICK = QuantizeSettings(images=FRAMES, limit=0.2, threads=1)


def picture(index: int) -> np.ndarray:
    """Return coloured waves that move, with noise, (H, W, 3) RGB."""
    draw = np.random.default_rng(7)
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH] / HEIGHT
    image = np.zeros((HEIGHT, WIDTH, 3))
    for frequency in np.geomspace(0.5, 12, 12):
        x, y, phase = draw.standard_normal(3)
        wave = np.cos(2 * np.pi * frequency * (u * x + v * y) + phase + 0.15 * index)
        image += wave[..., None] * (1 + 0.5 * draw.standard_normal(3)) / frequency
    image = 128 + 40 * image + np.random.default_rng(index).normal(0, 2, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Film through a lens that bends."""
    path = tmp_path_factory.mktemp('bags') / 'waves'
    fields = world.camera_fields(
        world.RecordingSettings(width=WIDTH, height=HEIGHT, lens='plumb_bob')
    )
    with RecordingWriter(path, 'mcap') as writer:
        for index in range(FRAMES):
            stamp_ns = 10**18 + index * 10**8
            writer.camera_info('/camera/camera_info', replace(fields, stamp_ns=stamp_ns))
            writer.image('/camera/image_raw', picture(index), stamp_ns, 'camera', 90)
    return path


@pytest.fixture(scope='module')
def model() -> ModelFolder:
    """Return the bundled model, which is trained: fresh weights hide faults."""
    return model_folder.read(BUNDLED)


@pytest.fixture(scope='module')
def single(model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """Return the model at one size, which is made in half the time."""
    return copied(
        model, tmp_path_factory.mktemp('models') / 'single', inputs=model.card.inputs[:1]
    )


class Spied:
    """A model that was quantised, and the images that were used for it."""

    def __init__(self, model: ModelFolder, bag: Path, out: Path) -> None:
        self.calibration: list[bytes] = []
        self.judgement: list[bytes] = []
        prepare, judge = Calibration.__init__, quantizer.judge

        def prepared(calibration: Calibration, folder: Path, card: ModelCard, size: InputSpec,
                     pictures: Sequence[np.ndarray], **rest: Any) -> None:  # fmt: skip
            self.calibration += [picture.tobytes() for picture in pictures]
            prepare(calibration, folder, card, size, pictures, **rest)

        def judged(folder: ModelFolder, size: InputSpec,
                   pictures: Sequence[np.ndarray], **rest: Any) -> judging.Judgement:  # fmt: skip
            self.judgement += [picture.tobytes() for picture in pictures]
            return judge(folder, size, pictures, **rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Calibration, '__init__', prepared)
            patch.setattr(quantizer, 'judge', judged)
            self.folder = quantize(model, bag, out, QUICK)


@pytest.fixture(scope='module')
def spied(model: ModelFolder, bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Spied:
    return Spied(model, bag, tmp_path_factory.mktemp('int8') / 'small')


@pytest.fixture(scope='module')
def small(spied: Spied) -> ModelFolder:
    return spied.folder


def opened(folder: ModelFolder, engine: str = 'openvino', precision: str = 'int8') -> Engine:
    return open_engine(
        folder, folder.card.inputs[0], engine=engine, precision=precision, threads=1
    )[0]


def copied(folder: ModelFolder, out: Path, **changes: object) -> ModelFolder:
    """Copy a model, with another card."""

    def fill(place: Path) -> None:
        for name in folder.card.files:
            (place / name).write_bytes(folder.file(name).read_bytes())

    return model_folder.write(out, replace(folder.card, **changes), fill)


def changed(folder: ModelFolder, out: Path, **changes: object) -> ModelFolder:
    """Copy a model with another first input."""
    first, *others = folder.card.inputs
    return copied(folder, out, inputs=(replace(first, **changes), *others))


def canned(*given: object, **rest: object) -> judging.Judgement:
    """Judge without looking: for tests that are about something else."""
    return judging.Judgement(192, 256, 0.01, 0.02, 0.3, 0.2, 20.0, 10.0, 1000)


def ignored(step: str, done: int, total: int) -> None:
    pass


def test_images_are_prepared_as_the_node_does(model: ModelFolder, bag: Path) -> None:
    pictures = read_pictures(bag, model.card, FRAMES, None, ignored)
    settings = settings_from({'model.threads': 1, 'model.engine': 'openvino'})
    pipeline = Pipeline(model, settings)
    size = model.card.inputs[pictures.camera_size]
    ours = camera.NetworkInput(size.height, size.width, model.card.mean, model.card.std)
    with open_recording(bag) as recording:
        topics = recording.camera_topics()
        fields = recording.first(topics.camera_info)
        assert isinstance(fields, CameraFields)
        view = camera.view_of(fields, WIDTH, HEIGHT, rectify=True, rectified_input=False)
        assert view.rectifier is not None
        for index, record in enumerate(recording.records([topics.image])):
            assert isinstance(record.content, CompressedImage)
            rgb = image_codec.decode_compressed(record.content)
            pipeline.process(CameraImage(rgb, index, 'camera'), view, settings)
            ours.normalize(pictures.by_size[pictures.camera_size][index])
            assert np.array_equal(ours.array, pipeline._serving_of(0).input.array)
            assert pictures.stamps_ns[index] == record.content.stamp_ns
    assert index == FRAMES - 1 and ours.array.std() > 0.1
    pipeline.close()


def test_images_are_spread_over_the_recording(model: ModelFolder, bag: Path) -> None:
    every = read_pictures(bag, model.card, 1000, None, ignored)
    some = read_pictures(bag, model.card, 10, None, ignored)
    assert len(every.stamps_ns) == FRAMES and len(some.stamps_ns) == 10
    assert (some.stamps_ns[0], some.stamps_ns[-1]) == (every.stamps_ns[0], every.stamps_ns[-1])
    for size, images in zip(model.card.inputs, some.by_size, strict=True):
        assert all(image.shape == (size.height, size.width, 3) for image in images)


def test_held_out_images_are_later_ones_than_those_of_the_calibration(
    spied: Spied, model: ModelFolder, bag: Path
) -> None:
    pictures = read_pictures(bag, model.card, FRAMES, None, ignored)
    count = round(0.7 * FRAMES)
    wanted = [image.tobytes() for images in pictures.by_size for image in images[:count]]
    assert spied.calibration == wanted
    wanted = [image.tobytes() for images in pictures.by_size for image in images[count:]]
    assert spied.judgement == wanted and len(wanted) == 2 * (FRAMES - count)
    assert not set(spied.calibration) & set(spied.judgement)
    assert list(pictures.stamps_ns) == sorted(pictures.stamps_ns)


def test_the_engine_runs_the_graph_in_int8_and_says_so(small: ModelFolder) -> None:
    engine = opened(small)
    assert engine.info.precision == 'int8'
    size = small.card.inputs[0]
    assert size.int8_error is not None
    assert engine.info.parity_error == pytest.approx(size.int8_error, rel=0.2)
    assert engine.info.parity_error > 1e-2
    engine.close()


def test_what_float32_gives_is_unchanged(model: ModelFolder, small: ModelFolder) -> None:
    image = np.random.default_rng(3).standard_normal((1, 3, 192, 256)).astype(np.float32)
    outputs = []
    for folder in (model, small):
        engine = opened(folder, precision='f32')
        outputs.append(engine.infer(image).copy())
        assert engine.info.precision == 'f32'
    assert np.array_equal(*outputs)
    for name in model.card.files:
        assert small.card.files[name] == model.card.files[name]


@pytest.mark.parametrize('name', [name for name in ORDER if name != 'openvino'])
def test_other_engines_refuse_int8(small: ModelFolder, name: str) -> None:
    with pytest.raises(EngineError, match='int8 need openvino'):
        opened(small, name)


def test_a_model_without_int8_says_how_to_get_it(model: ModelFolder) -> None:
    with pytest.raises(ModelError, match='models quantize MODEL RECORDING'):
        opened(model)


def test_a_graph_that_openvino_runs_without_int8_is_not_called_int8(
    small: ModelFolder, tmp_path: Path
) -> None:
    first = small.card.inputs[0]
    false = changed(small, tmp_path / 'false', graph_int8=first.graph)
    with pytest.raises(EngineError, match='arithmetic in f32, expected int8'):
        opened(false)


def test_a_processor_that_computes_something_else_is_found(
    small: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = OpenVinoEngine.infer

    def overflowing(self: OpenVinoEngine, image: np.ndarray) -> np.ndarray:
        output = infer(self, image)
        return output + 2 * np.abs(output).max() * (output > np.quantile(output, 0.99))

    monkeypatch.setattr(OpenVinoEngine, 'infer', overflowing)
    with pytest.raises(Disagreement, match='--weight-bits 7'):
        opened(small)


def test_a_graph_whose_error_nobody_measured_is_refused(
    small: ModelFolder, tmp_path: Path
) -> None:
    unmeasured = changed(small, tmp_path / 'm', int8_error=None)
    with pytest.raises(ModelError, match='no int8_error'):
        opened(unmeasured)


@pytest.mark.parametrize('error', [0.0, -0.1, 1.5, float('inf')])
def test_a_card_that_would_let_everything_pass_is_refused(
    small: ModelFolder, tmp_path: Path, error: float
) -> None:
    with pytest.raises(ModelError, match='int8_error'):
        changed(small, tmp_path / 'm', int8_error=error)


@pytest.mark.parametrize('damage', [lambda p: p.write_bytes(p.read_bytes()[:-1] + b'\0\1'),
                                    lambda p: p.unlink()])  # fmt: skip
@pytest.mark.parametrize('ending', ['onnx', 'safetensors'])
def test_a_damaged_or_missing_file_of_int8_is_named(
    small: ModelFolder, tmp_path: Path, damage: Callable[[Path], object], ending: str
) -> None:
    copy = changed(small, tmp_path / 'm')
    name = f'{Path(str(copy.card.inputs[0].graph_int8)).stem}.{ending}'
    damage(copy.path / name)
    with pytest.raises(ModelError, match=name):
        model_folder.read(copy.path)


def test_the_card_tells_what_int8_costs(small: ModelFolder) -> None:
    told = small.card.metrics['int8']
    assert isinstance(told, dict)
    assert (told['calibrated_with'], told['held_out_images']) == (
        'waves',
        FRAMES - round(0.7 * FRAMES),
    )
    for size in small.card.inputs:
        figures = told[f'{size.width}x{size.height}']
        assert 0 < figures['median_relative_error'] < figures['p95_relative_error']
        assert figures['p95_relative_error'] <= figures['max_relative_error']
        assert figures['speed_ratio'] > 0


def test_sizes_share_their_weights_in_int8(model: ModelFolder, small: ModelFolder) -> None:
    new = {name: item.size_bytes for name, item in small.card.files.items()
           if name not in model.card.files and name.endswith('safetensors')}  # fmt: skip
    assert len(new) <= 2
    weights = sum(item.size_bytes for item in model.card.files.values())
    assert max(new.values()) < 0.5 * weights
    for size in small.card.inputs:
        graph = checked_graph(small, size, 'int8')
        assert max(new, key=lambda name: new[name]) in external_files(graph)


def test_a_model_that_is_quantised_again_holds_no_old_files(
    single: ModelFolder,
    small: ModelFolder,
    bag: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantizer, 'judge', canned)
    first = copied(small, tmp_path / 'first', inputs=small.card.inputs[:1])
    again = quantize(first, bag, tmp_path / 'again', replace(QUICK, weight_bits=8))
    fresh = {name for name in again.card.files if 'int8' in name}
    assert len(fresh) == 2 and all(again.card.files[n] != small.card.files[n] for n in fresh)
    assert set(again.card.files) - fresh <= set(single.card.files)
    assert again.card.metrics['int8']['weight_bits'] == 8  # type: ignore[index]


def test_an_error_above_the_limit_is_refused_with_the_figures_and_leaves_nothing(
    single: ModelFolder, bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['quantize', str(single.path), str(bag), '--name', str(tmp_path / 'm')]
    assert models.main([*arguments, '--limit', '1e-5', '--images', '10', '--threads', '1']) == 1
    told = capsys.readouterr()
    assert 'MEDIAN ERROR' in told.out and '256x192' in told.out
    assert 'median relative depth error of' in told.err and 'at most 0.001 %' in told.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('place', [(Calibration, 'shifts'), (quantizer, 'judge')])
def test_ctrl_c_leaves_nothing_behind(
    single: ModelFolder,
    bag: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[object, str],
) -> None:
    def stopped(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*place, stopped)
    arguments = ['quantize', str(single.path), str(bag), '--name', str(tmp_path / 'm')]
    assert models.main([*arguments, '--images', '10', '--threads', '1']) == 130
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_is_no_use_is_refused_before_anything_is_written(
    model: ModelFolder, bag: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecordingError, match='Check the path'):
        quantize(model, tmp_path / 'absent', tmp_path / 'm', QUICK)
    with pytest.raises(RecordingError, match='/other'):
        quantize(model, bag, tmp_path / 'm', replace(QUICK, topic='/other'))
    with pytest.raises(RecordingError, match='5 images of'):
        quantize(model, bag, tmp_path / 'm', replace(QUICK, images=5))
    for wrong in ({'limit': 0.0}, {'images': 0}, {'weight_bits': 4}, {'threads': -1}):
        with pytest.raises(SettingsError):
            quantize(model, bag, tmp_path / 'm', replace(QUICK, **wrong))
    assert list(tmp_path.iterdir()) == []


def test_list_and_show_tell_the_precisions(
    small: ModelFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('DEPTH_NODE_MODELS', str(small.path.parent))
    assert models.main(['list']) == 0
    assert 'f32 f16 int8' in capsys.readouterr().out
    assert models.main(['show', 'small']) == 0
    assert 'Precisions: f32 f16 int8' in capsys.readouterr().out


def test_graphs_made_again_leave_int8_behind_and_the_user_is_told(
    small: ModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written: list[ModelCard] = []

    def write(out: Path, card: ModelCard, *rest: object, **more: object) -> ModelFolder:
        written.append(card)
        return small

    copy = copied(small, tmp_path / 'small')
    monkeypatch.setattr(maker.model_folder, 'write', write)
    assert models.main(['remake', str(copy.path)]) == 0
    assert 'int8 belonged to the old ones and are gone' in capsys.readouterr().out
    (card,) = written
    assert all(size.graph_int8 is size.int8_error is None for size in card.inputs)
    assert 'int8' not in card.metrics and 'livingroom' in card.metrics
