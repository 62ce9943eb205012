"""The files of a store: manifest, shards, and how they come onto the disk whole or not at all."""

from __future__ import annotations

import errno
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from wm_mpc.core.channels import Channel, read_channels
from wm_mpc.core.errors import DataError
from wm_mpc.core.fields import Checked, NonNegativeInt, PositiveFloat, PositiveInt
from wm_mpc.core.files import write_atomically
from wm_mpc.data.trajectory import Trajectory

FORMAT, VERSION = "wm_mpc.store", 1
MANIFEST = "store.json"


class StoreError(DataError):
    """A store or a shard is missing, damaged or of another kind; one line names the file."""


@dataclass(frozen=True)
class StoreSpec(Checked):
    """What every trajectory of a store shares.

    Attributes:
        task: task or robot name.
        action_dim: raw action width, >= 1.
        proprio_dim: proprioception width, >= 0.
        state_dim: width of true simulator states; 0 where there are none.
        control_period: [s] between two actions, > 0.
        image_size: (height, width) of the images [px].
        proprio_channels: what each number of proprioception is; empty: not known, as in stores
            written before there were channels.
        action_channels: likewise of actions, which says what an action means.
    """

    task: str
    action_dim: PositiveInt
    proprio_dim: NonNegativeInt
    state_dim: NonNegativeInt
    control_period: PositiveFloat
    image_size: tuple[int, int]
    proprio_channels: tuple[Channel, ...] = ()
    action_channels: tuple[Channel, ...] = ()

    def __post_init__(self) -> None:
        for name in ("proprio_channels", "action_channels"):
            object.__setattr__(self, name, read_channels(getattr(self, name)))
        object.__setattr__(self, "image_size", tuple(int(v) for v in self.image_size))
        super().__post_init__()
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise ValueError(f"image_size: {self.image_size} is not (height, width) above 0")
        for name, width in (("proprio", self.proprio_dim), ("action", self.action_dim)):
            found = len(getattr(self, f"{name}_channels"))
            if found not in (0, width):
                raise ValueError(f"{name}_channels: {found} entries; {width} expected, or none")

    def check(self, trajectory: Trajectory) -> Trajectory:
        """Return ``trajectory`` validated against itself and this description.

        Raises:
            ValueError: one line naming the field.
        """
        trajectory.validate()
        state_dim = 0 if trajectory.state is None else trajectory.state.shape[-1]
        for name, found, expected in (
            ("images", tuple(trajectory.images.shape[1:3]), self.image_size),
            ("actions", trajectory.actions.shape[1:], (self.action_dim,)),
            ("proprio", trajectory.proprio.shape[1:], (self.proprio_dim,)),
            ("state", state_dim, self.state_dim),
        ):
            if found != expected:
                raise ValueError(f"{name}: size {found} per step; the store has {expected}")
        return trajectory


def write_manifest(path: Path, spec: StoreSpec) -> None:
    """Make ``path`` a store of kind ``spec``."""
    told = {name: value for name, value in asdict(spec).items() if value not in ((), [])}
    manifest = {"format": FORMAT, "version": VERSION, **told}
    write_atomically(path / MANIFEST, json.dumps(manifest, indent=2))


def read_manifest(path: Path) -> StoreSpec:
    """What the store at ``path`` holds.

    Raises:
        StoreError: no store, another format or version, or a damaged manifest.
    """
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text())
        found = manifest.pop("format"), manifest.pop("version")
    except FileNotFoundError:
        raise StoreError(f"{path}: no store here ({MANIFEST} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file}: not a store manifest: {error}") from error
    if found != (FORMAT, VERSION):
        raise StoreError(
            f"{file}: format {found[0]} version {found[1]}; {FORMAT} version {VERSION} expected"
        )
    try:
        return StoreSpec(**manifest)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{file}: {error}") from error


def disk_error(path: Path, error: OSError) -> StoreError:
    """One-line StoreError for a failed write of ``path``."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    reason = "the disk is full" if full else error.strerror or str(error)
    return StoreError(f"{path}: {reason}; shards written before are intact")
