"""Room: the world model. Encoder, projector, predictor; saved as safetensors and JSON.

``protocol`` says what a planner needs; ``world_model`` fulfils it; ``encoder``, ``projectors``
and ``predictors`` are its parts, ``decoder`` shows a latent, ``proposers`` guess plans;
``checkpoint`` reads and writes, ``identity`` tells whether two models see alike.
Calls: core. Called by: every room above.
Words: *latent*, *token*, *proprioception*, *model step* (frameskip control periods),
*fingerprint*.
"""
