"""Room: the command line. One file per command, one table in ``main``.

A command's module has a ``Config`` (its docstrings are the help) and ``run(config) -> int``; it
parses, calls a room below, prints and writes the report. No algorithm lives here.
Calls: every room below. Called by: the shell, ``python -m wm_mpc.cli``.
Words: *command*, *report* (the JSON of ``--report``), *exit code* (0 only on success).
"""
