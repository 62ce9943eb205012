"""Room: from a store to a model, and from a model to a better one."""
