"""Room: how good is it? Closed loop in the true simulator, no ROS; models against data.

``episodes`` runs one goal, ``jobs`` many of them, ``rows`` and ``table`` make the numbers;
``validation`` and ``train_test_gap`` look at a model alone, ``rollouts`` executes plans,
``speed`` times kernels.
Calls: control, planners, latents, models, tasks. Called by: cli, trials, training.
Words: *row* (one planner on one task), *Wilson interval*, *reference* (CEM 300 x 30 on this
machine).
"""
