"""The script that owners of a Jetson run: one file, whatever fails in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import jetson_report  # noqa: E402


def test_parts_that_fail_are_rows_and_names_stay_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = "import json, sys; json.dump({'at': '/home/someone/x'}, open(sys.argv[1], 'w'))"
    bad = f"import sys; print('last words in {ROOT}/wm_mpc'); sys.exit(3)"

    def parts(folder: Path, quick: bool, cuda: bool) -> list[jetson_report.Part]:
        one = jetson_report.Part("good", ["-c", good, str(folder / "good" / "r.json")])
        hung = jetson_report.Part("hung", ["-c", "import time; time.sleep(60)"], limit_s=0.5)
        return [one, jetson_report.Part("bad", ["-c", bad]), hung]

    monkeypatch.setattr(jetson_report, "parts", parts)
    out = tmp_path / "jetson.json"
    monkeypatch.setattr(sys, "argv", ["jetson_report.py", str(out), "--device", "cpu"])
    assert jetson_report.main() == 1
    report = json.loads(out.read_text())
    assert (report["format"], report["cuda"]) == ("wm_mpc.jetson_report", False)
    one, bad_row, hung = report["parts"]
    assert one["code"] == 0 and one["results"]["r"] == {"at": "HOME"}
    assert bad_row["code"] == 3 and bad_row["said"] == ["last words in ./wm_mpc"]
    assert hung["code"] is None
    assert report["machine"]["cores"] >= 1


def test_graphs_run_last_and_alone(tmp_path: Path) -> None:
    made = list(jetson_report.parts(tmp_path, quick=False, cuda=True))
    assert made[-1].env == {"WM_MPC_CUDA_GRAPHS": "1"}
    assert [part.name for part in made if part.env] == ["cuda_graphs"]
    names = {part.name for part in jetson_report.parts(tmp_path, quick=True, cuda=False)}
    assert names == {"doctor", "cpu_threads1", "kernels"}
