"""What goes out on ``scan``: the virtual laser scan of a frame, or a reason why there is none."""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import LaserScan

from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.frames import CameraModel
from depth_node.frames import DepthFrame
from depth_node.ros import messages
from depth_node.scan import Scanner
from depth_node.scan import scan_frame
from depth_node.settings import Settings

_WARNINGS = 16


class ScanMaker:
    """Makes scans of depth frames; keeps the tables of the last camera."""

    def __init__(self, node: Any) -> None:
        """Prepare; nothing is computed before the first frame.

        :param node: whose logger says why there is no scan.
        """
        self._node = node
        self._key: tuple[CameraModel, float] | None = None
        self._scanner: Scanner | None = None
        self._warned: set[str] = set()

    def message(self, frame: DepthFrame, settings: Settings) -> LaserScan | None:
        """Return the scan of a frame, with the stamp of its image.

        :returns: None where the camera does not see its horizon; a warning has said so once.
        """
        scanner = self._scanner_of(frame.camera, settings.scan.band)
        if scanner is None:
            return None
        # farther than depth.max_m nothing was looked for, whatever the scan was asked
        max_m = min(settings.scan.max_m, settings.depth.max_m)
        scan = scanner.scan(frame.depth_m, settings.scan.min_m, max_m)
        return messages.scan_message(scan, frame, self._frame_id(frame.frame_id, settings))

    def _scanner_of(self, camera: CameraModel, band: float) -> Scanner | None:
        """Return the scanner of a camera, made when camera or band change."""
        if self._key != (camera, band):
            self._key, self._scanner = (camera, band), None
            try:
                self._scanner = Scanner(camera, band=band)
            except SettingsError as error:
                self._warn(f'{error} No scan is published until it sees its horizon.')
        return self._scanner

    def _frame_id(self, image_frame: str, settings: Settings) -> str:
        """Return the frame of the scan; warn where only a guess is left."""
        if settings.scan.frame_id:
            return settings.scan.frame_id
        forward = scan_frame(image_frame)
        if forward == image_frame:
            self._warn(
                f'scan: received images in the frame {quoted(image_frame)}, expected one with '
                '_optical in its name. The scan is published in that frame; where its z, not its '
                'x, points forward, set scan.frame_id to the frame beside it.'
            )
        return forward

    def _warn(self, text: str) -> None:
        """Say a sentence once; after some, frames and cameras that keep changing are no news."""
        if text not in self._warned and len(self._warned) < _WARNINGS:
            self._warned.add(text)
            self._node.get_logger().warning(text)
