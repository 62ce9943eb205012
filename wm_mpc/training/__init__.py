"""Room: from a store to a model, and from a model to a better one.

``pipeline`` trains from nothing, ``finetune`` closes the train-test gap (adversarial, online),
``live`` learns while a robot drives; ``encoder``, ``projector`` and ``dynamics`` are the parts
that are trained, ``optimise`` is the loop, its resume files and its processes.
Calls: evaluation (plans executed in the simulator), planners, latents, models, tasks, data.
Called by: cli, nodes. Words: *stage* (a part trained and kept), *window* (consecutive model
steps), *on-policy data* (what the planner's own actions led to).
"""
