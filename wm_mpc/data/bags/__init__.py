"""Rosbags in, rosbags out: recorded robot time becomes training data, stores become bags."""

from wm_mpc.data.bags.config import AlignConfig, ImportConfig
from wm_mpc.data.bags.export import ExportConfig, Exporter
from wm_mpc.data.bags.importer import import_bags
from wm_mpc.data.bags.source import Bag
from wm_mpc.data.bags.topics import TopicConfig
from wm_mpc.data.bags.writer import BagWriter, WriterConfig

__all__ = [
    "AlignConfig",
    "Bag",
    "BagWriter",
    "ExportConfig",
    "Exporter",
    "ImportConfig",
    "TopicConfig",
    "WriterConfig",
    "import_bags",
]
