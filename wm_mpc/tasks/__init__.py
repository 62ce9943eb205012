"""Room: what is known of a task, once: environment, preset, quantities."""
