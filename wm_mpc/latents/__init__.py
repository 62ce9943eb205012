"""Room: the only way from a store to what is trained on."""
