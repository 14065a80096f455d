"""Fine-tune a model on recordings of a robot: a model that is proven better, or the old one.

``python -m depth_node.tools.finetune BAG...`` looks through the recordings, learns from them
without labels, judges the result on time that it has not seen, and writes the folder ``best`` for
the node: the new model when it is better, a copy of the old one when it is not.  Stopped at any
moment, the same command goes on.  A verb as the first word ends the run after that stage.
"""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from typing import NoReturn

from depth_node.dataset.ego_mask import EgoMask
from depth_node.dataset.topics import TopicChoice
from depth_node.errors import DepthNodeError
from depth_node.errors import MissingPackage
from depth_node.errors import RecordingError
from depth_node.finetuning.progress import Bars
from depth_node.finetuning.run_folder import STAGES
from depth_node.finetuning.run_folder import RunFolder
from depth_node.finetuning.settings import DEVICES
from depth_node.finetuning.settings import POSES
from depth_node.finetuning.settings import PRECISIONS
from depth_node.finetuning.settings import SCALES
from depth_node.finetuning.settings import FineTuneSettings
from depth_node.judging.gate import Outcome
from depth_node.ros.memory import keep_large_buffers
from depth_node.settings import settings_from

if TYPE_CHECKING:
    from depth_node.finetuning.stages import FineTuning
    from depth_node.judging.gate import Verdict

EXIT_REFUSED = 1
EXIT_STOPPED = 130
_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO)
_AGAIN = 'Put that right and run the same command again: it goes on from here.'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages.

    :returns: 0 improved (or the stage that was asked for is done), 2 unusable data, 3 not
        improved, 1 for anything else that was refused, 130 on Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb = words.pop(0) if words and words[0] in STAGES else ''
    options = _parser().parse_args(words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(
            verb, options, 'depth_node finetune ' + shlex.join([*([verb] * bool(verb)), *words])
        )
    except KeyboardInterrupt:
        print('finetune: stopped; the same command goes on from here', file=sys.stderr)
        return EXIT_STOPPED
    except RecordingError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK:
            print(f'finetune: {error} {_AGAIN}', file=sys.stderr)
            return EXIT_REFUSED
        print(f'finetune: {error}', file=sys.stderr)
        return int(Outcome.UNUSABLE)
    except DepthNodeError as error:
        print(f'finetune: {error}', file=sys.stderr)
        return EXIT_REFUSED
    except OSError as error:
        print(f'finetune: {_refusal(error)}', file=sys.stderr)
        return EXIT_REFUSED


def _refusal(error: OSError) -> DepthNodeError:
    where = f' ({error.filename})' if error.filename else ''
    return DepthNodeError(
        'disk',
        f'{error.strerror or error}{where}',
        'files that can be read and written',
        _AGAIN,
    )


def _run(verb: str, options: argparse.Namespace, command: str) -> int:
    settings = settings_of(options)
    _check_torch()
    from depth_node.finetuning.stages import FineTuning
    from depth_node.finetuning.stages import Voice
    from depth_node.finetuning.torchrun import process_group

    keep_large_buffers(os.environ)  # a fifth of a step would go into fresh pages
    bars = Bars()
    try:
        with process_group() as rank:
            folder = RunFolder(options.out, options.frames, leads=rank == 0)
            voice = Voice(bars.say, bars.counted, bars.trained) if rank == 0 else Voice()
            run = FineTuning(settings, folder, voice, command)
            if rank:
                run.follow()
                return 0
            try:
                with folder.locked():
                    status = _staged(verb, run, bars)
            except DepthNodeError:
                run.dismiss()  # the others would wait, and end with a traceback instead
                raise
            run.dismiss()
            return status
    finally:
        bars.close()


def _staged(verb: str, run: FineTuning, bars: Bars) -> int:
    """Run to the stage that a verb names; without one, to the end."""
    if verb == 'audit':
        from depth_node.dataset.audit import describe

        for _, audit in run.audit():
            bars.say(describe(audit))
    elif verb == 'cache':
        run.cache()
    elif verb == 'train':
        run.train()
        bars.say(f'the candidate is {run.folder.candidate}; it is not proven yet')
    else:
        verdict = run.evaluate().verdict if verb == 'evaluate' else run.report()
        return _told(verdict, run.folder, bars)
    return 0


def _told(verdict: Verdict, folder: RunFolder, bars: Bars) -> int:
    for reason in verdict.reasons:
        bars.say(reason)
    if verdict.improved:
        bars.say(f'improved: {folder.best} is the new model; run the node with model.name:=it')
    else:
        bars.say(f'not improved: {folder.best} is the start model, byte for byte')
    if folder.report.exists():
        bars.say(f'the report is {folder.report}')
    return int(verdict.outcome)


def settings_of(options: argparse.Namespace) -> FineTuneSettings:
    """Make settings of the command line.

    :raises SettingsError: for what is out of range.
    """
    return FineTuneSettings(
        recordings=tuple(options.recordings),
        model=options.model,
        images=tuple(options.image),
        camera_infos=tuple(options.camera_info),
        choice=TopicChoice(
            depth=options.depth,
            odometry=options.odometry,
            imu=options.imu,
            scan=options.scan,
            cloud=options.cloud,
            stereo=options.stereo_topic,
        ),
        camera=settings_from(
            {
                'camera.intrinsics': options.intrinsics,
                'camera.horizontal_fov_deg': options.hfov,
            }
        ).camera,
        hidden=tuple(options.hide),
        ego_mask=EgoMask.read(options.ego_mask) if options.ego_mask else None,
        pose=options.pose,
        scale=options.scale,
        camera_height_m=options.camera_height,
        teacher=options.teacher,
        steps=options.steps,
        batch=options.batch,
        train_decoder_only=options.decoder_only,
        workers=options.workers,
        seed=options.seed,
        device=options.device,
        precision=options.precision,
        rate_hz=options.rate,
    )


def _check_torch() -> None:
    """Refuse early where torch is missing.

    :raises MissingPackage: with the command that installs it.
    """
    if find_spec('torch') is None:
        raise MissingPackage('torch', 'fine-tuning', 'pip install torch onnx onnxscript')


class _Parser(argparse.ArgumentParser):
    """Ends with 1 for words that it does not understand: 2 is for recordings that are unusable."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_REFUSED, f'finetune: {message}\n')


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    default = FineTuneSettings((Path('.'),))
    parser = _Parser(
        prog='python -m depth_node.tools.finetune [' + '|'.join(STAGES) + ']',
        description=(__doc__ or '').split('\n')[0],
        epilog='exit status: 0 improved, 2 unusable data, 3 not improved (start model kept)',
    )
    add = parser.add_argument
    add(
        'recordings',
        nargs='+',
        type=Path,
        metavar='BAG',
        help='recordings of a robot',
    )
    add('-o', '--out', type=Path, default=Path('finetuned'), help='folder of the run')
    add('--frames', type=Path, metavar='DIR', help='folder of frames that several runs share')
    add('--model', default=default.model, help='name or folder of the model to start from')
    add(
        '--image', metavar='TOPIC', action='append', default=[],
        help='images of a camera; repeat it for several; default: all cameras',
    )  # fmt: skip
    add(
        '--camera-info', metavar='TOPIC', action='append', default=[],
        help='its camera_info; one for each --image',
    )  # fmt: skip
    add('--odometry', metavar='TOPIC', help='odometry; or tf:FRAME, or "" for none')
    add('--imu', metavar='TOPIC', help='IMU, for the clocks; "" for none')
    add('--scan', metavar='TOPIC', help='LaserScan; "" for none')
    add('--cloud', metavar='TOPIC', help='PointCloud2 of a lidar; "" for none')
    add('--depth', metavar='TOPIC', help='depth images; "" for none')
    add('--stereo-topic', metavar='TOPIC', help='other camera of a stereo pair; "" for none')
    add('--intrinsics', default='', metavar='"FX FY CX CY"', help='where camera_info is unusable')
    add('--hfov', type=float, default=0.0, metavar='DEG', help='instead: horizontal field of view')
    add('--hide', metavar='TOPIC', nargs='+', default=[], help='learn nothing from this topic')
    add('--ego-mask', type=Path, metavar='PNG', help='white where the robot sees itself')
    add('--pose', choices=POSES, default=default.pose, help='where poses come from')
    add('--scale', choices=SCALES, default=default.scale, help='whether to measure the scale')
    add('--camera-height', type=float, metavar='M', help='camera over level ground, metres')
    add('--teacher', default='', metavar='MODEL', help='larger model whose shapes are learned')
    add('--steps', type=int, default=default.steps, help='training steps; 0: by the frames')
    add('--batch', type=int, default=default.batch, help='frames per step')
    add('--decoder-only', action='store_true', help='leave the encoder as it is')
    add('--rate', type=float, default=default.rate_hz, metavar='HZ', help='images per second')
    add('--workers', type=int, default=default.workers, help='threads that prepare frames')
    add('--seed', type=int, default=default.seed, help='of everything random')
    add('--device', choices=DEVICES, default=default.device, help='where it learns')
    add('--precision', choices=PRECISIONS, default=default.precision, help='of the network')
    return parser


if __name__ == '__main__':
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'ERROR')
    sys.exit(main())
