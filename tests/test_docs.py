"""The Python of the documents runs as it stands, on real images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hand_tracking_ros.cli.demo import CLIP, demo_directory
from hand_tracking_ros.hand_size import load_hand_size
from hand_tracking_ros.paths import config_directory
from hand_tracking_ros.rig import rig_from_text, save_rig

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("HAND_TRACKING_DATA", ROOT.parent / "shared" / "data"))
STEREO = DATA / "videos" / "stereo_desk"


def block(document: str, words: str) -> str:
    """The only block of Python in a document that has these words."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    (wanted,) = [text for text in found if words in text]
    return wanted


def run(program: str, folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("document", "words"), [("README.md", "HandTracker()"), ("docs/python.md", "load_camera_yaml")]
)
def test_one_camera(tmp_path, document, words):
    shutil.copy(demo_directory() / CLIP, tmp_path / "clip.mp4")
    shutil.copy(config_directory() / "camera_example.yaml", tmp_path / "camera.yaml")
    lines = run(block(document, words), tmp_path)
    sides = {side: sum(side in line for line in lines) for side in ("LEFT", "RIGHT")}
    assert min(sides.values()) > 10 and sum(sides.values()) == len(lines) > 100
    if "load_camera_yaml" in words:
        away_m = [float(line.split()[-1]) for line in lines]
        assert all("ASSUMED" in line for line in lines) and 0.2 < sorted(away_m)[len(away_m) // 2] < 2.0


def test_a_known_hand(tmp_path):
    run(block("docs/python.md", "from_hand_length"), tmp_path)
    assert load_hand_size(tmp_path / "me.yaml").palm_m == pytest.approx(0.0918, abs=0.001)


@pytest.mark.skipif(not STEREO.is_dir(), reason="needs ../shared/data/videos/stereo_desk (or HAND_TRACKING_DATA)")
def test_several_cameras(tmp_path):
    lenses, places = [STEREO / "c0.dat", STEREO / "c1.dat"], [STEREO / f"rot_trans_c{i}.dat" for i in (0, 1)]
    save_rig(tmp_path / "rig.yaml", rig_from_text(lenses, places, (720, 720), 0.042))
    shutil.copy(STEREO / "cam0.mp4", tmp_path / "left.mp4")
    shutil.copy(STEREO / "cam1.mp4", tmp_path / "right.mp4")
    lines = run(block("docs/python.md", "RigTracker").replace("range(60)", "range(120)"), tmp_path)
    assert lines and "MEASURED" in lines[-1]
