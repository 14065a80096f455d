"""Recordings: rosbag2 folders, bare files and ROS 1 bags, read and written."""

from depth_node.recording.reader import CameraTopics as CameraTopics
from depth_node.recording.reader import Recording as Recording
from depth_node.recording.reader import Topic as Topic
from depth_node.recording.reader import open_recording as open_recording
