"""From tokens to the planning latent: landmarks, joint training, the reader of posture."""
