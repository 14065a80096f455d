"""One command that shows the whole way: camera image in, depth and points out, over real DDS.

``python -m depth_node.tools.demo`` renders a room, plays it as a live camera from one process,
runs the node in another, receives what it publishes in this one, and sums up what was measured.
"""

from __future__ import annotations

import argparse
import math
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from depth_node import files
from depth_node.errors import DepthNodeError
from depth_node.errors import MissingPackage
from depth_node.errors import RecordingError
from depth_node.errors import SettingsError
from depth_node.settings import Settings
from depth_node.world import recording as world

# Fast DDS derives its ports from the domain; above 101 they run into those of the system.
_LARGEST_DOMAIN = 101


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    :returns: exit status: 0 when depth was published, 1 with a sentence when not, 130 on Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(_demonstrated(options))
    except KeyboardInterrupt:
        print('demo: stopped', file=sys.stderr)
        return 130
    except DepthNodeError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    return 0


def _demonstrated(options: argparse.Namespace) -> str:
    """Run what the options say; return the table of results.

    :raises DepthNodeError: for options out of range and when the run fails.
    """
    for name in ('rate', 'seconds', 'patience_s', 'max_age_s'):
        if not getattr(options, name) > 0.0:
            raise SettingsError(
                f'option --{name.replace("_", "-")}', f'{getattr(options, name)}', 'more than 0'
            )
    try:
        from depth_node.demo import report as demo_report
        from depth_node.demo import run as demo_run
        from depth_node.demo.truth import Source
    except ModuleNotFoundError as error:
        raise MissingPackage(
            error.name or 'rclpy', 'the demo', 'source /opt/ros/jazzy/setup.bash'
        ) from error
    video = options.video is not None
    source = Source(
        path=options.video or options.recording or _own_recording(),
        video=video,
        hfov_deg=options.hfov_deg,
        image=options.image_topic,
        camera_info=options.camera_info_topic,
        depth=options.depth_topic,
    )
    run = demo_run.Run(
        source=source,
        out=options.out,
        node=demo_run.NODE,
        model=options.model,
        engine=options.engine,
        rate=options.rate,
        seconds=options.seconds,
        domain=options.domain or 1 + secrets.randbelow(_LARGEST_DOMAIN),
        patience_s=options.patience_s,
        max_age_s=options.max_age_s,
    )
    print(f'domain {run.domain}; to watch: ROS_DOMAIN_ID={run.domain} rviz2')
    figures = demo_run.demonstrate(run)
    return f'{demo_report.table(figures)}\n\nresults: {options.out}'


def _own_recording() -> Path:
    """Return a rendered recording of a room, from the cache of the user where it is there."""
    path = files.cache_folder('demo') / f'room-{world.VERSION}'
    if path.exists():
        return path
    with tqdm(desc='rendering a room, once', unit='frame', leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            world.write(path, progress=progress)
        except RecordingError:
            # Another demo that began at the same time may have been faster.
            if not path.exists():
                raise
    return path


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m depth_node.tools.demo',
        description='Play a recording as a live camera through the node, and sum up.',
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        '--recording',
        type=Path,
        help='rosbag2 folder, .mcap, .db3 or ROS 1 .bag; default: a rendered room',
    )
    what.add_argument('--video', type=Path, help='video file instead of a recording')
    add = parser.add_argument
    add('--hfov-deg', type=float, default=65.0, help='horizontal field of view of the video')
    add('--out', type=Path, default=Path('out', 'demo'), help='folder for the results')
    add('--model', default=Settings().model.name, help='name, or path with a /, of a model folder')
    add('--engine', default=Settings().model.engine, help='engine that runs it')
    add('--rate', type=float, default=1.0, help='speed; 1 is that of the recording')
    add('--seconds', type=float, default=math.inf, help='stop after this time of playing')
    add('--image-topic', help='image topic of the recording, where it has several')
    add('--camera-info-topic', help='camera_info topic of the recording')
    add('--depth-topic', help="depth topic of the recording; '' for none")
    add('--domain', type=int, help='ROS domain of all processes; default: by chance')
    add('--patience-s', type=float, default=90.0, help='longest wait for the first depth image')
    add(
        '--max-age-s',
        type=float,
        default=Settings().input.max_age_s,
        help='drop images that are older than this; more than a large model takes for one',
    )
    return parser


if __name__ == '__main__':
    sys.exit(main())
