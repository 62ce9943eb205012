"""Room: the receding-horizon controller. Observation in, command out, every tick, on time.

``controller`` is one tick, top down; ``engine`` is model, planner and budget as one;
``running_plan`` shifts the last plan by the time that passed; ``safety`` limits, watches and
brings to rest; ``guard`` judges a new model; ``pacing`` and ``deadlines`` are about time. No
ROS, no thread, no clock of its own.
Calls: planners, models, core. Called by: nodes, evaluation.
Words: *tick*, *deadline*, *plan age*, *image age*, *safe stop*, *ramp*.
"""
