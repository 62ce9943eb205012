"""Room: recorded trajectories. The training store, and the rosbags they come from and go to.

``store`` is our format, ``bags`` reads and writes rosbag2, ``lerobot`` its dataset layout;
``trajectory`` is one recording in memory, ``decoding`` turns camera messages into pictures.
Knows no ROS installation and no model.
Calls: core. Called by: latents, training, nodes, cli, ``sim_bridge``.
Words: *trajectory*, *episode*, *shard*, *control period*, *stamp*.
"""
