"""What ``metadata.yaml`` of a rosbag2 says, where it can be believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_LARGEST = 16 * 2**20
"""[bytes] A recording of a thousand files and topics needs less."""
_LONGEST = 1000
"""Characters of a name: ROS 2 allows 255."""
# libyaml, where PyYAML was built with it, is ten times as fast
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_metadata(path: Path) -> dict[str, Any]:
    """Read ``rosbag2_bagfile_information``; everything that is read off it anywhere is checked.

    Raises:
        ValueError: the file is not readable, or says what cannot be.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path.name}: more than {_LARGEST >> 20} MiB")
        text = path.read_text(encoding="utf-8")
        info = yaml.load(text, Loader=_LOADER)["rosbag2_bagfile_information"]
        for name in info["relative_file_paths"]:
            _of(str, name)
        for entry in info["topics_with_message_count"]:
            topic = entry["topic_metadata"]
            _of(str, topic["name"]), _of(str, topic["type"]), _of(int, entry["message_count"])
        _of(int, info["message_count"])
        _of(int, info["starting_time"]["nanoseconds_since_epoch"])
        _of(int, info["duration"]["nanoseconds"])
        _of(str, info.get("compression_format") or "")
        _of(str, info.get("compression_mode") or "")
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path.name}: nested without end") from None
    return info


def _of(kind: type, value: object) -> None:
    """Refuse another type, and numbers that no stamp or count can be.

    A document may contain itself, so values are looked at only when their type is right.
    """
    if type(value) is not kind:
        raise ValueError(f"a {kind.__name__} expected")
    if isinstance(value, str) and len(value) > _LONGEST:
        raise ValueError(f"text of {len(value)} characters; at most {_LONGEST} expected")
    if isinstance(value, int) and not 0 <= value < 2**63:
        raise ValueError(f"{value % 10**20}; 0 to 2^63 expected")
