"""Room: what is known of a task, once: environment, preset, quantities.

Calls: core, models. Called by: training, evaluation, trials, cli.
Words: *task* (a simulated robot with goals), *preset* (settings it trains well with), *quantity*
(what a person would measure in a state, with its unit).
"""
