#!/bin/sh
# Give the command the environment of ROS and of the workspace; become it, so that signals reach it.
set -e
. "/opt/ros/$ROS_DISTRO/setup.sh"
. /ws/install/local_setup.sh
exec "$@"
