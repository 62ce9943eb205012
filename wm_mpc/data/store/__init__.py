"""The training store: folders of shards, a record, windows over all of it."""

from wm_mpc.data.store.store import Store, StoreSpec, StoreWriter

__all__ = ["Store", "StoreSpec", "StoreWriter"]
