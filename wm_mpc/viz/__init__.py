"""Room: pictures of numbers and of plans; matplotlib and OpenCV, no ROS."""
