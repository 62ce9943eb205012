"""Room: the ground floor. What every room may use and what uses none of them.

Errors for people, clocks, declared bounds, files, statistics, devices, provenance of a report.
Calls: nothing of ours. Words: *UserError* (one line: field, value, bound), *clock* (injected),
*provenance* (command, seed, commit, machine).
"""
