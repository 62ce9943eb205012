"""A stage of training done once: its tensors are kept under a key of all it depends on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from wm_mpc.core.files import write_atomically
from wm_mpc.models.identity import tensor_digest
from wm_mpc.models.world_model import WorldModel


def once(
    file: Path,
    key: Mapping[str, Any],
    model: WorldModel,
    parts: tuple[str, ...],
    stage: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Run a stage that trains parts of a model in place, or take up what it left when done.

    Args:
        file: where the stage's result is kept, written atomically.
        key: JSON-able settings and data of the stage; a result of others is told on stdout and
            not used, nor is a damaged one.
        model: world model, whose named parts are trained or loaded.
        parts: beginnings of the state's keys that the stage sets.
        stage: does the work and returns its facts, JSON-able.

    Returns:
        The stage's facts.
    """
    own = {k: v for k, v in model.state_dict().items() if k.startswith(parts)}
    # what it starts from tells of sizes and of everything before it
    whole = json.loads(json.dumps({**key, "initial": tensor_digest(own, typed=True)[:24]}))
    if file.is_file():
        try:
            with safe_open(file, "pt") as stored:
                about = json.loads((stored.metadata() or {}).get("stage", "{}"))
                if about.get("key") == whole:
                    kept = {name: stored.get_tensor(name) for name in own}
                    model.load_state_dict(kept, strict=False)
                    print(f"{file}: done before, taken up")
                    return about["facts"]
            print(f"{file}: of a run with other settings; the stage starts anew")
        except (SafetensorError, ValueError) as error:
            print(f"{file}: damaged ({error}); the stage starts anew")
    facts = stage()
    file.parent.mkdir(parents=True, exist_ok=True)
    trained = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if k in own}
    about = {"stage": json.dumps({"key": whole, "facts": facts})}
    write_atomically(file, save(trained, about))
    return facts
