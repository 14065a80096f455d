"""Recordings made of another one by spoiling something: what a fine-tuning has to find out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores
from rosbags.typesys import get_typestore

from depth_node.dataset.audit import Audit
from depth_node.dataset.gyro_rotation import steadied_poses
from depth_node.dataset.poses import inverted
from depth_node.dataset.poses import rotation_vectors
from depth_node.dataset.topics import topics_of
from depth_node.dataset.trajectory import Trajectory
from depth_node.image_codec import encode_jpeg
from depth_node.recording import Recording

STORE = get_typestore(Stores.ROS2_JAZZY)
IMAGE, CAMERA_INFO = '/camera/image_raw/compressed', '/camera/camera_info'
ODOMETRY, STATIC = '/odom', '/tf_static'

Alter = Callable[[str, int, Any, list[Any]], Any]
"""Topic, place among its messages, message, all messages of the topic -> message or None."""


def altered(source: Path, out: Path, alter: Alter | None = None, storage: str = 'mcap') -> Path:
    """Write a copy of a recording whose messages ``alter`` has changed; None leaves one out."""
    with AnyReader([source]) as reader:
        messages = [
            (item, stamp_ns, reader.deserialize(data, item.msgtype))
            for item, stamp_ns, data in reader.messages()
        ]
        connections = list(reader.connections)
    of_topic: dict[str, list[Any]] = {}
    for item, _, message in messages:
        of_topic.setdefault(item.topic, []).append(message)
    places = dict.fromkeys(of_topic, 0)
    with Writer(out, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        made = {
            item.id: writer.add_connection(
                item.topic, item.msgtype, typestore=STORE,
                offered_qos_profiles=item.ext.offered_qos_profiles,
            )
            for item in connections
        }  # fmt: skip
        for item, stamp_ns, message in messages:
            place = places[item.topic]
            places[item.topic] += 1
            if alter is not None:
                message = alter(item.topic, place, message, of_topic[item.topic])
            if message is not None:
                data = STORE.serialize_cdr(message, item.msgtype)
                writer.write(made[item.id], stamp_ns, data)
    return out


def with_stamp(message: Any, header: Any) -> Any:
    """Return a copy of a message under another header."""
    return type(message)(**{**fields_of(message), 'header': header})


def fields_of(message: Any) -> dict[str, Any]:
    return {
        name: getattr(message, name) for name in message.__dataclass_fields__ if name[0] != '_'
    }


def standing(topic: str, place: int, message: Any, all_of_it: list[Any]) -> Any:
    """Let everything stay as it was at first; only time goes on."""
    if topic == STATIC:
        return message
    return with_stamp(all_of_it[0], message.header)


def noise(topic: str, place: int, message: Any, all_of_it: list[Any]) -> Any:
    """Show noise instead of images."""
    if topic != IMAGE:
        return message
    grains = np.random.default_rng(place).integers(0, 256, (120, 160, 3), np.uint8)
    data = np.frombuffer(encode_jpeg(grains, 90), np.uint8)
    return type(message)(**{**fields_of(message), 'data': data})


def wrong_focal_length(topic: str, place: int, message: Any, all_of_it: list[Any]) -> Any:
    """Send a focal length that is half as long again as the true one."""
    if topic != CAMERA_INFO:
        return message
    k, p = message.k.copy(), message.p.copy()
    k[[0, 4]] *= 1.5
    p[[0, 5]] *= 1.5
    return type(message)(**{**fields_of(message), 'k': k, 'p': p})


def shuffled_poses(topic: str, place: int, message: Any, all_of_it: list[Any]) -> Any:
    """Give every moment the pose of another one."""
    if topic != ODOMETRY:
        return message
    order = np.random.default_rng(3).permutation(len(all_of_it))
    return with_stamp(all_of_it[order[place]], message.header)


def late_images(delay_ns: int) -> Alter:
    """Stamp what a camera sends later than it was taken."""

    def alter(topic: str, place: int, message: Any, all_of_it: list[Any]) -> Any:
        if not topic.startswith('/camera'):
            return message
        header = message.header
        total = header.stamp.sec * 10**9 + header.stamp.nanosec + delay_ns
        stamp = type(header.stamp)(sec=total // 10**9, nanosec=total % 10**9)
        return with_stamp(message, type(header)(stamp=stamp, frame_id=header.frame_id))

    return alter


def without(*topics: str) -> Alter:
    """Leave topics out."""
    return lambda topic, place, message, all_of_it: None if topic in topics else message


def first_messages(count: int) -> Alter:
    """Keep the beginning of every topic."""
    return lambda topic, place, message, all_of_it: message if place < count else None


def both(*alters: Alter) -> Alter:
    """Do one after the other."""

    def alter(topic: str, place: int, message: Any, all_of_it: list[Any]) -> Any:
        for one in alters:
            message = one(topic, place, message, all_of_it)
        return message

    return alter


def without_heading(topic: str, place: int, message: Any, all_of_it: list[Any]) -> Any:
    """Let odometry know where it is, but not how it is turned."""
    if topic == ODOMETRY:
        message.pose.pose.orientation = all_of_it[0].pose.pose.orientation
    return message


def without_mount(topic: str, place: int, message: Any, all_of_it: list[Any]) -> Any:
    """Do not say how the IMU is mounted."""
    if topic != STATIC:
        return message
    return type(message)(
        transforms=[item for item in message.transforms if item.child_frame_id != 'imu_link']
    )


def with_yaw_noise(spread_rad: float) -> Alter:
    """Shake the heading of odometry from message to message."""

    def alter(topic: str, place: int, message: Any, all_of_it: list[Any]) -> Any:
        if topic == ODOMETRY:
            half = np.random.default_rng(place).normal(0.0, spread_rad) / 2
            c, s = float(np.cos(half)), float(np.sin(half))
            o = message.pose.pose.orientation
            message.pose.pose.orientation = type(o)(
                x=c * o.x - s * o.y, y=c * o.y + s * o.x, z=c * o.z + s * o.w, w=c * o.w - s * o.z
            )
        return message

    return alter


def used_poses(recording: Recording, audit: Audit) -> Trajectory:
    """The poses that an audit makes of a recording, in the clock of the images."""
    topics = topics_of(recording, audit.choice)
    found = steadied_poses(recording, topics, audit.camera_frame, audit.gyro_use)
    assert found is not None
    return replace(found, stamps_ns=found.stamps_ns + audit.applied_offset_ns)


def turning_error_rad(poses: Trajectory, truth: Trajectory, apart: int = 3) -> float:
    """Return by how much the turning between poses is wrong, RMS, radians.

    :param apart: poses from one to the other of a pair.
    """
    made, true = (inverted(item.poses[:-apart]) @ item.poses[apart:] for item in (poses, truth))
    wrong = rotation_vectors(np.swapaxes(made[:, :3, :3], 1, 2) @ true[:, :3, :3])
    return float(np.sqrt((wrong**2).sum(axis=1).mean()))
