"""The predictor and what is trained on its latents: symmetry, decoder, proposals."""
