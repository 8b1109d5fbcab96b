"""Several cameras: one hand with one id in metres, whichever of them see it. On the shared stereo clip."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.cli import main
from hand_tracking_ros.config import PoseConfig, TrackConfig, TrackerConfig
from hand_tracking_ros.fitting import HandView
from hand_tracking_ros.hand_size import load_hand_size
from hand_tracking_ros.kinematics import NUM_ANGLES, HandPose
from hand_tracking_ros.rig import Rig, RigCamera, rig_from_text, save_rig
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.rig_watch import FAR, strange_palm
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Frame, Scale

SQUARE_M = 0.042  # of the clip's calibration board: makes the palm that MediaPipe's keypoints span 88 mm
FIRST, COUNT = 200, 60
DATA = Path(os.environ.get("HAND_TRACKING_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
FOLDER = DATA / "videos" / "stereo_desk"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs ../shared/data/videos/stereo_desk (or HAND_TRACKING_DATA)"
)


@pytest.fixture(scope="module")
def clip() -> tuple[Rig, list[list[np.ndarray]]]:
    rig = rig_from_text(
        [FOLDER / "c0.dat", FOLDER / "c1.dat"],
        [FOLDER / "rot_trans_c0.dat", FOLDER / "rot_trans_c1.dat"],
        (720, 720),
        SQUARE_M,
    )
    return rig, pairs(FIRST, COUNT)


def pairs(first: int, count: int) -> list[list[np.ndarray]]:
    """Grey images of both cameras."""
    videos = []
    for name in ("cam0.mp4", "cam1.mp4"):
        capture = cv2.VideoCapture(str(FOLDER / name))
        for _ in range(first):
            capture.grab()
        videos.append([cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(count)])
    return [list(pair) for pair in zip(*videos)]


def run(rig: Rig, images, config=TrackerConfig(track=TrackConfig(max_hands=1)), late_s=0.0):
    """Hands per frame, and the tracker. An image that is None is one that did not come."""
    tracker, found = RigTracker(rig, config), []
    for index, pair in enumerate(images):
        stamps = (index / 30, index / 30 - late_s)
        frames = [None if image is None else Frame(image, stamp) for image, stamp in zip(pair, stamps)]
        found.append(tracker.step(frames))
    return found, tracker


def test_two_cameras_make_one_measured_hand(clip):
    rig, images = clip
    found, tracker = run(rig, images)
    seen = [hands[0] for hands in found if hands]
    assert len(seen) >= 0.9 * COUNT
    assert {hand.id for hand in seen} == {1} and {hand.side for hand in seen[5:]} == {Side.RIGHT}
    assert seen[-1].scale == Scale.MEASURED
    assert len(tracker.filter.fit(1).errors_px) == 2  # both cameras took part
    assert tracker.filter.size.palm_m == pytest.approx(0.08, abs=0.015)
    assert (tracker.disagreement < 0.3).all()
    lengths = np.linalg.norm(np.stack([h.points_3d[9] - h.points_3d[0] for h in seen[-20:]]), axis=1)
    assert lengths.std() / lengths.mean() < 0.03  # one skeleton over time
    projected = rig.cameras[1].project(seen[-1].points_3d)
    assert ((projected > 0) & (projected < 720)).all()  # it is in the second image too


@contextmanager
def one_core():
    """This process on one core, where cameras take turns."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs Linux and two cores")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def test_cameras_side_by_side_give_what_they_give_in_turn(clip):
    rig, images = clip
    together, tracker = run(rig, images[:30])
    with one_core():
        in_turn, alone = run(rig, images[:30])
    assert tracker._pool is not None and alone._pool is None
    assert sum(map(len, together)) > 20
    for some, others in zip(together, in_turn, strict=True):
        assert [hand.id for hand in some] == [hand.id for hand in others]
        for one, other in zip(some, others):
            np.testing.assert_array_equal(one.points_3d, other.points_3d)
            np.testing.assert_array_equal(one.keypoints_px, other.keypoints_px)


def test_what_one_camera_raises_comes_out_and_the_others_have_finished(clip, monkeypatch):
    rig, images = clip
    tracker, finished = RigTracker(rig), []
    look = tracker._look

    def slow_or_broken(index: int, frame: Frame):
        if index == 0:
            raise RuntimeError("the first camera")
        found = look(index, frame)
        finished.append(index)
        return found

    monkeypatch.setattr(tracker, "_look", slow_or_broken)
    with pytest.raises(RuntimeError, match="the first camera"):
        tracker.step([Frame(image, 0.0) for image in images[0]])
    assert finished == ([1] if tracker._pool else [])  # on one core they take turns


def test_hands_that_two_cameras_took_for_two_become_one(clip):
    """The second camera comes late, and by the first alone the hand is a quarter too near: elsewhere in the second."""
    rig, images = clip
    config = TrackerConfig(track=TrackConfig(max_hands=2), pose=PoseConfig(palm_m=0.06))
    found, tracker = run(rig, [[first, second if k > 20 else None] for k, (first, second) in enumerate(images)], config)
    assert [hand.id for hand in found[20]] == [1] == [hand.id for hand in found[-1]]
    assert {index for seen in tracker._hands.values() for index in seen.tracks} == {0, 1}
    assert found[-1][0].scale == Scale.MEASURED and found[-1][0].side == Side.RIGHT
    assert tracker.filter.size.palm_m == pytest.approx(0.08, abs=0.015)


@pytest.mark.parametrize("palm_m", [0.055, 0.088])
def test_a_hand_that_is_not_where_one_camera_alone_would_have_it_is_looked_for_elsewhere(clip, palm_m):
    """All hands that are wanted are in view of one camera: the other one looks for them all the same."""
    rig, images = clip
    config = TrackerConfig(track=TrackConfig(max_hands=1), pose=PoseConfig(palm_m=palm_m))
    found, tracker = run(rig, images, config)
    measured = [bool(hands) and hands[0].scale == Scale.MEASURED for hands in found]
    first = next(k for k, hands in enumerate(found) if hands)
    assert first < 4 and measured.index(True) - first < (30 if palm_m == 0.055 else 4) and all(measured[30:])
    assert {hand.id for hands in found for hand in hands} == {1}
    assert tracker.filter.size.palm_m == pytest.approx(0.083, abs=0.004)


@pytest.mark.parametrize(("shift_px", "axis"), [(200, 1), (-150, 1), (200, 0)])
def test_a_camera_whose_track_slips_onto_something_else_does_not_drag_the_hand_along(clip, shift_px, axis):
    rig, images = clip
    moved = [[a, b if k < 30 else np.ascontiguousarray(np.roll(b, shift_px, axis))] for k, (a, b) in enumerate(images)]
    found, _ = run(rig, moved[:40], TrackerConfig(track=TrackConfig(max_hands=2)))
    away = [next(np.linalg.norm(hand.points_3d[9]) for hand in hands if hand.id == 1) for hands in found[29:]]
    assert np.ptp(away[:6]) < 0.05 * away[0]


@pytest.mark.parametrize("every", [1, 2])
def test_a_stray_track_gives_up_its_place(clip, every):
    """What a camera follows, and is none of the hands that are wanted, keeps none of them out for long."""
    rig, images = clip
    tracker, lasted = RigTracker(rig, TrackerConfig(track=TrackConfig(max_hands=1))), {}
    for k, (first, second) in enumerate(images):
        elsewhere = np.ascontiguousarray(second[::-1, ::-1])
        hands = tracker.step([Frame(first, k / 30), Frame(elsewhere, k / 30) if k % every == 0 else None])
        assert len(hands) == 1 or k < 8  # until it is found
        if not hands:
            continue
        of_the_hand = tracker._hands[hands[0].id].tracks.get(1)
        for box in (box for box in tracker._tracks[1].boxes() if box.id != of_the_hand):
            lasted.setdefault(box.id, []).append(k)
    assert lasted and max(map(len, lasted.values())) <= 0.5 * 30 + 1


def test_a_camera_that_drops_out_only_degrades_the_result(clip):
    rig, images = clip
    without = [[first, None if 20 <= k < 45 else second] for k, (first, second) in enumerate(images)]
    found, tracker = run(rig, without)
    assert all(hands and hands[0].id == 1 for hands in found[15:])
    assert len(tracker.filter.fit(1).errors_px) == 2  # it is back
    only_second = [[None if 20 <= k < 30 else first, second] for k, (first, second) in enumerate(images)]
    found, _ = run(rig, only_second)
    assert all(hands and hands[0].id == 1 for hands in found[15:])


def test_images_that_are_not_synchronised_are_led_on_to_one_time(clip):
    rig, images = clip
    late = [[first, images[max(k - 1, 0)][1]] for k, (first, _) in enumerate(images)]
    found, tracker = run(rig, late, late_s=1 / 30)
    assert all(hands and hands[0].id == 1 for hands in found[15:]) and (tracker.disagreement < 0.35).all()


def test_hands_come_out_in_the_frame_of_the_rig_whichever_that_is(clip):
    """A frame like a robot's base, x forward and z up, where the hand is below the origin: the same hands, moved."""
    rig, images = clip
    rotation, origin_m = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.array([0.2, -0.3, 1.5])
    base = Rig(
        tuple(
            replace(c, rotation=c.rotation @ rotation, translation_m=c.translation_m - c.rotation @ rotation @ origin_m)
            for c in rig.cameras
        )
    )
    optical, tracker = run(rig, images[:25])
    moved, in_base = run(base, images[:25])
    assert len(moved[-1]) == len(optical[-1]) == 1
    for hand, same in zip(optical[-1], moved[-1]):
        np.testing.assert_allclose(same.points_3d, hand.points_3d @ rotation + origin_m, atol=1e-6)
        np.testing.assert_allclose(same.velocities_3d, hand.velocities_3d @ rotation, atol=1e-4)
        np.testing.assert_allclose(same.pose.points(), same.points_3d, atol=1e-9)
        np.testing.assert_allclose(same.keypoints_px, hand.keypoints_px, atol=1e-6)
    np.testing.assert_allclose(in_base.disagreement, tracker.disagreement, atol=1e-6)


def test_cameras_can_be_placed_later_and_moved_and_hands_live_on(clip):
    rig, images = clip
    tracker = RigTracker(None, TrackerConfig(track=TrackConfig(max_hands=1)))
    with pytest.raises(ValueError, match="place them first"):
        tracker.step([Frame(images[0][0], 0.0), None])
    frames = [[Frame(image, k / 30) for image in pair] for k, pair in enumerate(images[:25])]
    tracker.place(rig)
    for pair in frames[:20]:
        before = tracker.step(pair)
    shift = np.array([0.0, 0.0, 1.0])
    tracker.place(Rig(tuple(replace(c, translation_m=c.translation_m - c.rotation @ shift) for c in rig.cameras)))
    after = tracker.step(frames[20])
    assert [hand.id for hand in after] == [hand.id for hand in before] == [1]
    np.testing.assert_allclose(after[0].points_3d - shift, before[0].points_3d, atol=0.03)
    other = replace(rig.cameras[0], camera=replace(rig.cameras[0].camera, fx=1000.0))
    tracker.place(Rig((other, rig.cameras[1])))  # another lens: nothing that is known fits any more
    assert np.isnan(tracker.disagreement).all() and tracker.filter.pose(1, None) is None


def test_what_an_earlier_image_showed_is_led_on_in_the_image_and_in_depth():
    """The second camera looks along the rig's x axis: what moves by 5 cm along x moves away from it by as much."""
    lens, turned = Camera(500.0, 500.0, 320.0, 240.0), np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
    side = RigCamera("side", 640, 480, lens, turned, np.array([0.5, 0.0, 0.5]))  # 0.5 m to the left of the hand
    tracker = RigTracker(Rig((RigCamera("front", 640, 480, lens), side)))
    then = HandPose(Side.RIGHT, np.eye(3), np.array([0.0, 0.0, 0.5]), np.zeros(NUM_ANGLES), 0.088)
    now = replace(then, position_m=np.array([0.05, 0.0, 0.5]))
    depth_m, unknown = side.from_rig(then.points())[:, 2], np.full(21, np.nan)
    seen = HandView(lens, side.project(then.points()) + 3.0, np.ones(21), unknown, np.append(depth_m[:20], np.nan))
    led = tracker._led_on(1, seen, then, now)
    np.testing.assert_allclose(led.keypoints_px, side.project(now.points()) + 3.0)
    np.testing.assert_allclose(led.depth_m[:20], depth_m[:20] + 0.05)
    assert np.isnan(led.depth_m[20])
    assert tracker._led_on(1, seen, None, now) is seen  # nothing is known of its motion


def test_cameras_that_fit_are_not_blamed(clip):
    rig, images = clip
    found, tracker = run(rig, images)
    assert found[-1] and not tracker.apart.any() and (tracker.disagreement < 0.3).all()
    assert not strange_palm(tracker.filter.size)


def through_the_command(rig: Rig, videos, frames: int, folder: Path, capsys) -> tuple[str, str]:
    """What `hand-tracking track` says of a rig on stdout and stderr, with as many hands as it looks for by default."""
    save_rig(folder / "desk.yaml", rig)
    first, second = (str(FOLDER / name) for name in videos)
    options = ["--also", second, "--max-frames", str(frames)]
    assert main(["track", first, "--rig", str(folder / "desk.yaml"), *options]) == 0
    return capsys.readouterr()


def test_swapped_cameras_are_noticed(clip, tmp_path, capsys):
    """Either the hands of the two cameras never meet, or they disagree: never a quiet wrong answer."""
    out, err = through_the_command(clip[0], ("cam1.mp4", "cam0.mp4"), 180, tmp_path, capsys)
    for text in (out, err):
        assert (
            f"{tmp_path / 'desk.yaml'} does not fit the cameras (calibration wrong, cameras swapped or moved)" in text
        )
    (warning,) = [line for line in out.splitlines() if line.startswith("WARNING")]
    since_s = float(warning.split("from ")[1].split(" to ")[0])
    assert 2.0 < since_s < 5.5  # of 6 s
    disagreement = next(line for line in out.splitlines() if line.startswith("disagreement")).split()[1]
    assert disagreement == "-" or float(disagreement) > FAR


def longer(camera: RigCamera, factor: float) -> RigCamera:
    """The camera as a calibration has it whose focal length is wrong."""
    lens = camera.camera
    return replace(camera, camera=replace(lens, fx=factor * lens.fx, fy=factor * lens.fy))


def test_focal_lengths_that_are_wrong_in_both_cameras_make_strange_hands(clip, tmp_path, capsys):
    both = Rig(tuple(longer(camera, 1.3) for camera in clip[0].cameras))
    out, err = through_the_command(both, ("cam0.mp4", "cam1.mp4"), 150, tmp_path, capsys)
    assert "palms measure 6" in err and "palms measure 6" in out and "does not fit the cameras" in out


def test_a_focal_length_that_is_wrong_in_one_camera_shows_in_the_disagreement(clip):
    """Only there: docs/several_cameras.md says so."""
    rig, images = clip
    _, straight = run(rig, images)
    _, wrong = run(Rig((longer(rig.cameras[0], 1.3), rig.cameras[1])), images)
    assert np.nanmax(wrong.disagreement) > 1.5 * np.nanmax(straight.disagreement)


def test_stamps_that_lie_are_noticed(clip):
    """The second camera shows what was one image ago, under the stamp of now."""
    rig, _ = clip
    images = pairs(60, 180)
    for behind, found_s in ((0, 0.0), (1, 1 / 30)):
        shown = [[now[0], old[1]] for now, old in zip(images[behind:], images)]
        _, tracker = run(rig, shown)
        assert tracker.lags_s[1] == pytest.approx(found_s, abs=0.012) and np.isnan(tracker.lags_s[0])


def test_steps_need_an_image_of_every_camera_or_none(clip):
    rig, images = clip
    tracker = RigTracker(rig)
    with pytest.raises(ValueError, match="at least one of 2 cameras"):
        tracker.step([None, None])
    with pytest.raises(ValueError, match="2 cameras"):
        tracker.step([Frame(images[0][0], 0.0)])


def test_a_dead_camera_passes_its_turn_to_look_for_hands_on(clip):
    rig, images = clip
    found, _ = run(rig, [[first, None] for first, _ in images])
    assert all(len(hands) == 1 for hands in found[20:])


def test_the_command_tracks_two_videos_and_keeps_the_size(clip, tmp_path, capsys):
    rig, _ = clip
    save_rig(tmp_path / "desk.yaml", rig)
    first, second = (str(FOLDER / name) for name in ("cam0.mp4", "cam1.mp4"))
    size, output = tmp_path / "me.yaml", tmp_path / "hands.jsonl"
    arguments = ["track", first, "--rig", str(tmp_path / "desk.yaml"), "--set", "track.max_hands=1"]
    extra = ["--output", str(output), "--overlay", str(tmp_path / "both.avi"), "--save-hand-size", str(size)]
    assert main([*arguments, "--also", second, "--max-frames", "90", *extra]) == 0
    text = capsys.readouterr().out
    assert text.split()[:2] == ["frames", "90"] and "WARNING" not in text
    assert 0 < float(next(line for line in text.splitlines() if line.startswith("disagreement")).split()[1]) < 0.2
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    metric = [hand for line in lines for hand in line["hands"] if hand["scale"] == "measured"]
    assert len(lines) == 90 and metric and 0.3 < np.array(metric[-1]["keypoints_m"])[9, 2] < 1.2
    assert load_hand_size(size).is_measured
    video = cv2.VideoCapture(str(tmp_path / "both.avi"))
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == 1440 and video.get(cv2.CAP_PROP_FRAME_COUNT) == 90


def test_the_command_says_what_is_wrong_with_its_cameras(clip, tmp_path, capsys):
    rig, _ = clip
    save_rig(tmp_path / "desk.yaml", rig)
    first = str(FOLDER / "cam0.mp4")
    for arguments, message in (
        (["--also", first], "--also needs --rig"),
        (["--rig", str(tmp_path / "desk.yaml")], "has 2 cameras, but 1 sources are given"),
        (["--rig", str(tmp_path / "none.yaml"), "--also", first], "cannot read rig"),
        (["--save-hand-size", str(tmp_path / "x.yaml")], "--save-hand-size needs what measures hands"),
        (
            ["--rig", str(tmp_path / "desk.yaml"), "--also", str(FOLDER / "cam1.mp4"), "--max-frames", "2"]
            + ["--save-hand-size", str(tmp_path / "x.yaml")],
            "nothing measured the hands",
        ),
    ):
        assert main(["track", first, *arguments]) == 2
        assert message in capsys.readouterr().err


def test_the_same_settings_change_nothing(clip):
    rig, images = clip
    config = TrackerConfig(track=TrackConfig(max_hands=1))
    tracker = RigTracker(rig, config)

    def ids(pair) -> list[int]:
        frames = [Frame(image, ids.count / 30) for image in pair]
        ids.count += 1
        return [hand.id for hand in tracker.step(frames)]

    ids.count = 0
    before = [ids(pair) for pair in images[:12]][-1]
    tracker.reconfigure(config)
    assert before and ids(images[12]) == before
