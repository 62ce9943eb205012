"""The encoder by the DINO recipe, on frames of a store."""
