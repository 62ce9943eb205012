"""Training: encoder, projectors, dynamics, and what tells whether they are fit to plan with."""
