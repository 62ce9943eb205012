"""Room: the command line. One file per command, one table in ``main``."""
