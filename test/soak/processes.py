"""The real node, a camera and a listener as processes of their own, in a DDS domain of their own.

``python -m soak.processes camera|listener NAMESPACE LOG`` is the other end: one JSON line per
message, written at once, so that nothing is lost when the process is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NODE = ('-m', 'depth_node.ros.node')
_SIGTERM_BIT = 1 << (signal.SIGTERM - 1)
_PERIOD_S = 1 / 30
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it is gone, however it went.

    For ``preexec_fn``: what a check has started is not to outlive it.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def environment() -> dict[str, str]:
    """Return an environment whose DDS speaks with nobody else."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / 'test'), os.environ.get('PYTHONPATH', '')))
    return {
        **os.environ,
        'PYTHONPATH': paths,
        'ROS_DOMAIN_ID': str(random.SystemRandom().randrange(1, 101)),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'RCUTILS_LOGGING_BUFFERED_STREAM': '0',
    }


def start_node(
    surroundings: dict[str, str], namespace: str, *parameters: str, log: Path | None = None
) -> subprocess.Popen[str]:
    """Start the real node with the bundled model; its standard error goes to a pipe or file."""
    words = [item for parameter in parameters for item in ('-p', parameter)]
    arguments = ['--ros-args', '-r', f'__ns:={namespace}', '-p', 'model.threads:=1', *words]
    return subprocess.Popen(
        [sys.executable, *NODE, *arguments],
        env=surroundings,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if log is None else log.open('a'),
        text=True,
        preexec_fn=die_with_parent,
    )


def start_peer(
    surroundings: dict[str, str], role: str, namespace: str, log: Path
) -> subprocess.Popen[str]:
    """Start a camera or a listener that appends to ``log``."""
    return subprocess.Popen(
        [sys.executable, '-m', 'soak.processes', role, namespace, str(log)],
        env=surroundings,
        cwd=ROOT,
        text=True,
        preexec_fn=die_with_parent,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process that may have ended already."""
    process.kill()
    process.communicate()


def wait_until_signals_are_heeded(pid: int, timeout_s: float = 30.0) -> None:
    """Wait until a process handles SIGTERM; before that no program can do anything about it."""
    limit_s = time.monotonic() + timeout_s
    while time.monotonic() < limit_s:
        status = Path(f'/proc/{pid}/status').read_text()
        caught = next((line for line in status.splitlines() if line.startswith('SigCgt')), '')
        if caught and int(caught.split()[1], 16) & _SIGTERM_BIT:
            return
        time.sleep(0.001)
    raise TimeoutError(f'process {pid} does not handle SIGTERM')


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a log, without one that a kill has cut off."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def main(role: str, namespace: str, log: str) -> int:
    """Be a camera or a listener until killed."""
    import rclpy

    from depth_node.ros.transport_profile import use_profile

    use_profile(os.environ)
    rclpy.init()
    node = rclpy.create_node(f'{role}_{os.getpid()}', namespace=namespace)
    with Path(log).open('a', buffering=1) as file:
        file.write(json.dumps({'began_ns': time.monotonic_ns()}) + '\n')

        def note(**facts: Any) -> None:
            file.write(json.dumps({'at_ns': time.monotonic_ns(), **facts}) + '\n')

        play = {'camera': _play_camera, 'listener': _listen}[role]
        try:
            play(node, note)
        except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
            pass
        except Exception:
            if rclpy.ok():
                raise
    rclpy.try_shutdown()
    return 0


def _play_camera(node: Any, note: Any) -> None:
    """Publish images and camera_info at 30 Hz once the node has found us."""
    from sensor_msgs.msg import CameraInfo
    from sensor_msgs.msg import Image

    from soak import pictures

    images = node.create_publisher(Image, 'image', 1)
    infos = node.create_publisher(CameraInfo, 'camera_info', 1)
    size = (320, 240)
    message, camera = pictures.raw(size, 'rgb8'), pictures.camera(size)
    due_s = time.monotonic()
    while node.context.ok():
        due_s += _PERIOD_S
        time.sleep(max(0.0, due_s - time.monotonic()))
        stamp_ns = time.time_ns()
        pictures.stamped(message, stamp_ns, 'camera')
        camera.header.stamp = message.header.stamp
        heard = images.get_subscription_count()
        infos.publish(camera)
        images.publish(message)
        note(stamp_ns=stamp_ns, heard=heard)


def _listen(node: Any, note: Any) -> None:
    """Note every depth image, and what the diagnostics count."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image

    def depth(message: Any) -> None:
        stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        note(stamp_ns=stamp_ns, age_s=round((time.time_ns() - stamp_ns) / 1e9, 4))

    def diagnostics(message: Any) -> None:
        counts = {item.key: item.value for item in message.status[0].values}
        note(
            received=int(counts['images received']),
            published=int(counts['images published']),
            dropped={
                key.removeprefix('dropped: '): int(value)
                for key, value in counts.items()
                if key.startswith('dropped: ')
            },
        )

    node.create_subscription(Image, 'depth/image_rect', depth, QoSProfile(depth=10))
    node.create_subscription(DiagnosticArray, '/diagnostics', diagnostics, QoSProfile(depth=10))
    rclpy.spin(node)


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:4]))
