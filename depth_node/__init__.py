"""depth_node: any camera on a ROS 2 robot becomes a metric depth camera."""

# The one place where the version stands; setup.py reads it, a test compares package.xml with it.
__version__ = '0.1.0'
