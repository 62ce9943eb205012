"""``markers``: the plan as markers and as one picture, on topics, for RViz and Foxglove."""
