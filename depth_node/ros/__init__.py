"""The ROS 2 node: wiring between topics and the pipeline; nothing here computes depth."""
