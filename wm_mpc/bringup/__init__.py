"""Room: which nodes run, with which parameters; started by ``ros2 launch`` or by us."""
