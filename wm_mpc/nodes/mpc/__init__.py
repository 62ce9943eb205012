"""``mpc_node``: the controller as a lifecycle node; ``loop`` is its planner thread."""
