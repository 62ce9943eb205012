#!/usr/bin/env bash
# Have ROS and the workspace in the environment, then run what was asked for.
set -e
if [ -z "${AMENT_PREFIX_PATH:-}" ]; then
  # shellcheck disable=SC1090 # the distribution of the image
  . "$(find /opt/ros -name setup.bash -not -name 'local_*' | sort | head -n 1)"
fi
# shellcheck disable=SC1091 # made by colcon
. /ws/install/setup.bash
exec "$@"
