"""Room: the only way from a store to what is trained on.

``encode`` turns pictures into tokens and tokens into latents and says how far its arithmetic lies
from the node's; ``frames`` does so for a store, ``tokens`` keeps what the encoder says of it,
``windows`` cuts training windows; ``expert`` and ``replay`` are windows of recorded and of
on-policy data.
Calls: models, data, core. Called by: training, evaluation.
Words: *frame* (a picture of a store), *token* (a patch as the encoder sees it), *latent*,
*window*.
"""
