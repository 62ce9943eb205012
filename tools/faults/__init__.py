"""Real processes, a simulated robot, and one fault after the other: ``make faults``.

``stage`` starts the nodes as a launch file does and watches what reaches the robot; ``robot`` is
the simulated robot whose sensors can be spoilt; ``rows_*`` are the faults, each with what must
happen; ``table`` writes what was seen. ``faulty_node`` is ``mpc_node`` with a planner that fails
on demand.
"""
