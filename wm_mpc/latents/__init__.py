"""Room: the only way from a store to what is trained on.

``tokens`` caches what the encoder says of every frame, ``encode`` turns pictures and tokens into
latents, ``windows`` and ``token_windows`` cut them for training, ``expert`` and ``replay`` are
windows of recorded and of on-policy data.
Calls: models, data, core. Called by: training, evaluation.
Words: *frame* (a picture of a store), *token* (a patch as the encoder sees it), *latent*,
*window*.
"""
