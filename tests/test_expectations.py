"""What a KeyNet-F is told to expect in the loops of one camera and of several. Networks: blob_models.py."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs onnx to write the small test networks")

from blob_models import DISC_PX, hand_at, write_models

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.config import InferenceConfig, TrackConfig, TrackerConfig
from hand_tracking_ros.rig import Rig, RigCamera
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.tracker import HandTracker
from hand_tracking_ros.types import Frame, HandBox, Source

LENS = Camera(500.0, 500.0, 320.0, 240.0)
STEP_PX = 7.0  # of the scene per frame
FRAMES = 14
LITTLE = [17, 18, 19, 20]


def draw(x: float, frame: int = 0, hidden: bool = False) -> np.ndarray:
    """A scene that moves with the disc at (x, 240); ``hidden``: noise, every time another, before the little finger."""
    rng, shift = np.random.default_rng(0), round(x - 320)
    image = cv2.resize(rng.integers(0, 120, (120, 260), dtype=np.uint8), (1040, 480), interpolation=cv2.INTER_LINEAR)
    image = np.ascontiguousarray(image[:, 200 - shift : 840 - shift])
    cv2.circle(image, (round(16 * (x - 0.5)), round(16 * 239.5)), DISC_PX * 16, 230, -1, cv2.LINE_AA, 4)
    if hidden:
        finger = hand_at(x, 240)[LITTLE]
        (left, top), (right, bottom) = finger.min(axis=0).astype(int) - 9, finger.max(axis=0).astype(int) + 9
        noise = np.random.default_rng(frame + 1).integers(0, 120, (bottom - top, right - left), dtype=np.uint8)
        image[top:bottom, left:right] = noise
    return image


@pytest.fixture(scope="module", params=[True, False], ids=["keynet_f", "keynet"])
def config(request, tmp_path_factory) -> TrackerConfig:
    models = write_models(tmp_path_factory.mktemp("models"), prior=request.param)
    plain = TrackerConfig(inference=InferenceConfig(backend="onnxruntime"), track=TrackConfig(max_hands=1))
    return replace(
        plain,
        detector=replace(plain.detector, model=models["detector.model"]),
        keypoints=replace(plain.keypoints, model=models["keypoints.model"]),
    )


def listening(tracker) -> list[list[HandBox]]:
    """Fills with the boxes of every call of the keypoint stage."""
    heard, estimate = [], tracker.estimator.estimate

    def listen(mono, boxes, *others, **named):
        heard.append(list(boxes))
        return estimate(mono, boxes, *others, **named)

    tracker.estimator.estimate = listen
    return heard


def run(tracker, hidden: bool, lens: Camera | None = LENS):
    """What KeyNet was told, what flow alone said, the truth (frames, 21, 2); and the calls that asked for poses."""
    boxes, asked, flow = listening(tracker), [], []
    predict, expected_px = tracker.tracks.predict, tracker.filter.expected_px
    tracker.tracks.predict = lambda *args: flow.append(predict(*args)) or flow[-1]
    tracker.filter.expected_px = lambda *args: asked.append(args) or expected_px(*args)
    xs = [270 + STEP_PX * k for k in range(FRAMES)]
    for k, x in enumerate(xs):
        (hand,) = tracker.step(Frame(draw(x, k, hidden and k > 0), k / 30, lens))
        assert hand.id == 1
    assert all(box.source == Source.PROPAGATED for (box,) in boxes[1:])
    told, alone = (np.stack([seen[0].expected_px for seen in found[1:]]) for found in (boxes, flow))
    return told, alone, np.stack([hand_at(x, 240) for x in xs[1:]]), asked


def test_a_warm_pose_tells_keynet_f_of_the_joint_that_flow_lost_and_costs_other_networks_nothing(config):
    tracker = HandTracker(config)
    told, alone, truth, asked = run(tracker, hidden=True)
    gaps = np.linalg.norm(told - truth, axis=2)
    assert tracker.estimator.takes_prior == config.keypoints.model.endswith("_f.yaml")
    if not tracker.estimator.takes_prior:
        assert asked == []
        np.testing.assert_array_equal(told, alone)
        return
    assert len(asked) == FRAMES
    np.testing.assert_array_equal(told[:2], alone[:2])  # nobody knows of the motion yet
    by_pose = (told[5:] != alone[5:]).any(axis=2)
    assert by_pose.any(axis=1).mean() > 0.5 and not np.delete(by_pose, LITTLE, axis=1).any()  # flow saw the others
    assert gaps[5:].max() < 10  # px; the palm has 60


def test_without_a_calibrated_camera_flow_alone_says_what_to_expect(config):
    told, alone, *_ = run(HandTracker(config), hidden=True, lens=None)
    np.testing.assert_array_equal(told, alone)


def test_the_other_camera_of_a_rig_is_told_where_the_pose_has_the_keypoints(config):
    """The second camera sees nothing at first: its first look is at the projected hand, and is told so."""
    beside = RigCamera("cam1", 640, 480, replace(LENS), translation_m=np.array([-0.1, 0.0, 0.0]))
    tracker = RigTracker(Rig((RigCamera("cam0", 640, 480, LENS), beside)), config)
    boxes = listening(tracker)
    still = Frame(draw(330), 0.0)
    for k in range(8):
        tracker.step([replace(still, stamp_s=k / 30), None])
    boxes.clear()
    tracker.step([replace(still, stamp_s=8 / 30), Frame(draw(230), 8 / 30)])
    second, first = sorted((box for (box,) in boxes), key=lambda box: box.source)  # the cameras may come in any order
    assert (first.source, second.source) == (Source.PROPAGATED, Source.DETECTED)
    projected = beside.project(tracker.filter.pose(1, 8 / 30).points())
    assert np.linalg.norm(second.expected_px - projected, axis=1).mean() < 20  # px; the palm has 60
    assert second.expected_px[9, 0] < 260


def test_the_poses_of_a_rig_are_told_in_every_camera(config):
    beside = RigCamera("cam1", 640, 480, replace(LENS), translation_m=np.array([-0.1, 0.0, 0.0]))
    tracker = RigTracker(Rig((RigCamera("cam0", 640, 480, LENS), beside)), config)
    votes = []
    for camera, tracks in enumerate(tracker._tracks):
        expect = tracks.expect
        tracks.expect = lambda px, vote, c=camera, own=expect: votes.append((px, vote, c)) or own(px, vote)
    for k in range(FRAMES):
        x = 370 + STEP_PX * k
        tracker.step([Frame(draw(x), k / 30), Frame(draw(x - 100), k / 30)])
    if not tracker.estimator.takes_prior:
        assert votes == []
        return
    assert len(votes) == 2 * FRAMES and all(vote for _, vote, _ in votes) and not votes[0][0]
    assert {camera for *_, camera in votes[-2:]} == {0, 1}
    for expected, _, camera in votes[-2:]:
        (points,) = expected.values()
        assert np.linalg.norm(points - hand_at(x - 100 * camera, 240), axis=1).mean() < 12  # px
