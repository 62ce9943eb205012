"""A model from nothing, stage by stage, each kept and taken up again."""
