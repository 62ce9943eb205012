"""Wall: does the latent know that the other room is far? Its distance of pairs by the true one.

python tools/room_distances.py DATA TOKENS MODEL [MODEL ...]

DATA: a Wall store; TOKENS: its token cache; MODEL: world-model folders. 4000 frames, 400 000
pairs, seed 0; the door is not left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from wm_mpc.data.store.store import Store
from wm_mpc.latents.encode import frame_proprio
from wm_mpc.models.world_model import WorldModel

WALL_X = 32.5  # [px]
RANGES = ((10, 15), (15, 20), (20, 30))  # [px]


def main(data: Path, tokens: Path, models: list[Path]) -> None:
    """Print a row per model: median distance across the wall over that within a room."""
    rng = np.random.default_rng(0)
    cached = np.load(tokens / "tokens.npy", mmap_mode="r")
    ids = np.sort(rng.choice(len(cached), 4000, replace=False))
    own = np.asarray(frame_proprio(Store.open(data).frames()))[ids]
    first, second = rng.integers(0, len(ids), (2, 400_000))
    true = np.linalg.norm(own[first] - own[second], axis=1)
    across = (own[first, 0] < WALL_X) != (own[second, 0] < WALL_X)
    seen, position = torch.from_numpy(np.asarray(cached[ids], np.float32)), torch.from_numpy(own)
    print("| model | " + " | ".join(f"{low} to {high} px" for low, high in RANGES) + " |")
    print("|---" * (len(RANGES) + 1) + "|")
    for path in models:
        model = WorldModel.load(path)
        with torch.no_grad():
            latent = model.encode_tokens(seen, position.float())[:, : model.visual_dim].numpy()
        distance = np.linalg.norm(latent[first] - latent[second], axis=1)
        cells = []
        for low, high in RANGES:
            near = (true >= low) & (true < high)
            ratio = np.median(distance[near & across]) / np.median(distance[near & ~across])
            cells.append(f"{ratio:.2f}")
        print(f"| {path.name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
