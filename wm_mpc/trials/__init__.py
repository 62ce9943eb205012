"""Room: whole systems watched from outside. Start the nodes, follow them over ROS, report.

``demo`` and ``live`` are the two trials; ``observer``, ``live_watch`` and ``recording`` listen
to topics; ``film``, ``page`` and ``window`` show what was heard.
Calls: nodes (qos and messages), bringup, evaluation, viz and what lies below. Called by: cli.
Words: *trial* (nodes started, watched and ended), *episode* (one goal pursued), *stage* (the
simulated nodes a trial needs).
"""
