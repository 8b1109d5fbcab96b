"""Record files: what is written reads back; what is malformed is named with file and line."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from hand_tracking_ros.errors import RecordError
from hand_tracking_ros.geometry import Box
from hand_tracking_ros.hand_size import HandSize, with_fingers
from hand_tracking_ros.kinematics import LIMITS, MEAN_HAND, HandPose, KinematicHand, exp_rotation
from hand_tracking_ros.outputs.frames import quaternions, wrist_rotation
from hand_tracking_ros.outputs.gestures import FULL_CURL, SignReader
from hand_tracking_ros.outputs.openxr import NUM_XR_JOINTS, XrJoint, xr_joints
from hand_tracking_ros.outputs.urdf import joint_names
from hand_tracking_ros.records import (
    LabelledHand,
    LabelledImage,
    TrackedFrame,
    dumps,
    hand_to_record,
    read_labels,
    read_tracks,
    write_labels,
    write_tracks,
)
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Hand, Scale, Source

POINTS = np.arange(42, dtype=float).reshape(21, 2) + 0.125


def a_hand(**changes) -> Hand:
    values = {
        "id": 3,
        "side": Side.RIGHT,
        "side_score": 0.98,
        "score": 0.97,
        "source": Source.PROPAGATED,
        "box": Box((20.5, 21.0), (40.0, 40.0), 0.25),
        "keypoints_px": POINTS.copy(),
        "keypoint_scores": np.linspace(0, 1, 21).round(4),
    }
    return Hand(**{**values, **changes})


def test_tracks_read_back(tmp_path):
    metric = a_hand(id=4, side=Side.UNKNOWN, scale=Scale.ASSUMED, points_3d=np.full((21, 3), 0.25))
    frames = [
        TrackedFrame(0, 0.0, 640, 480, (a_hand(), metric), {"total": 3.125, "detect": 0.0}),
        TrackedFrame(1, 1 / 30, 640, 480, ()),
    ]
    path = tmp_path / "hands.jsonl"
    with path.open("w") as stream:
        write_tracks(stream, frames)
    first, second = read_tracks(path)
    assert (first.frame, first.width, first.height, first.latency_ms) == (0, 640, 480, {"total": 3.125, "detect": 0.0})
    assert second.hands == () and second.stamp_s == pytest.approx(1 / 30, abs=1e-6)
    hand, other = first.hands
    assert (hand.id, hand.side, hand.source, hand.scale) == (3, Side.RIGHT, Source.PROPAGATED, Scale.NONE)
    assert hand.box == Box((20.5, 21.0), (40.0, 40.0), 0.25)
    assert np.array_equal(hand.keypoints_px, POINTS)
    assert np.array_equal(hand.keypoint_scores, np.linspace(0, 1, 21).round(4))
    assert np.isnan(hand.points_3d).all()
    assert other.side == Side.UNKNOWN and other.scale == Scale.ASSUMED and np.all(other.points_3d == 0.25)


def a_pose(side=Side.LEFT, shape: KinematicHand = MEAN_HAND, **changes) -> HandPose:
    angles = np.random.default_rng(0).uniform(*LIMITS.T)
    turn = exp_rotation(np.array([0.4, -1.9, 0.7]))
    values = {"angles": angles, "palm_m": 0.0842, "finger_ratio": 1.04}
    return HandPose(side, turn, np.array([0.1, -0.05, 0.52]), shape=shape, **{**values, **changes})


def a_posed_hand(pose: HandPose, **changes) -> Hand:
    velocities = np.random.default_rng(1).normal(0, 0.3, (21, 3))
    return a_hand(
        **{
            "side": pose.side,
            "scale": Scale.MEASURED,
            "points_3d": pose.points(),
            "velocities_3d": velocities,
            **changes,
        },
        pose=pose,
    )


def written_and_read(tmp_path, hand: Hand, signs: SignReader | None = None) -> tuple[dict, Hand]:
    path = tmp_path / "hands.jsonl"
    with path.open("w") as stream:
        write_tracks(stream, [TrackedFrame(0, 0.0, 640, 480, (hand,))], signs)
    return json.loads(path.read_text())["hands"][0], read_tracks(path)[0].hands[0]


@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
def test_a_pose_reads_back(tmp_path, side):
    fingers = with_fingers(HandSize(0.0842), {"index": (0.043, 0.025, 0.02)})
    for shape in (MEAN_HAND, fingers.shape):
        pose = a_pose(side, shape)
        hand = a_posed_hand(pose, velocities_px=POINTS - 20)
        record, read = written_and_read(tmp_path, hand)
        assert read.pose.side == side and read.pose.palm_m == pose.palm_m and read.pose.finger_ratio == 1.04
        np.testing.assert_allclose(read.pose.points(), pose.points(), atol=2e-5)
        np.testing.assert_allclose(read.pose.angles, pose.angles, atol=1e-5)
        np.testing.assert_allclose(read.pose.rotation, pose.rotation, atol=1e-5)
        np.testing.assert_allclose(read.velocities_3d, hand.velocities_3d, atol=1e-4)
        np.testing.assert_allclose(read.pose.shape.bone_ratios, shape.bone_ratios, atol=1e-5)
        assert ("bone_ratios" in record["pose"]) == (shape is not MEAN_HAND)
        assert np.isnan(read.velocities_px).all()  # only with everything


def test_what_is_written_of_a_pose_is_what_the_nodes_publish(tmp_path):
    pose = a_pose()
    record, _ = written_and_read(tmp_path, a_posed_hand(pose))
    assert list(record)[-2:] == ["velocities_3d", "pose"]
    written = record["pose"]
    assert written["position_m"] == [0.1, -0.05, 0.52]
    np.testing.assert_allclose(written["orientation"], quaternions(wrist_rotation(pose)), atol=1e-6)
    assert list(written["joint_angles"]) == joint_names(Side.LEFT)
    assert written["joint_angles"]["left_index_flexion"] == pytest.approx(pose.angles[4], abs=1e-5)


def test_with_signs_everything_that_follows_from_a_pose_is_written(tmp_path):
    flexions = np.tile([FULL_CURL / 3, 0.0, FULL_CURL / 3, FULL_CURL / 3], 5)
    flexions[:4] = (-0.6, -0.7, 0.0, 0.0)  # the thumb stands off
    fist, signs = a_pose(angles=flexions, finger_ratio=1.0), SignReader()
    turning = np.random.default_rng(2).normal(0, 3, 20)
    hand = a_posed_hand(fist, velocities_px=POINTS - 20, angle_velocities=turning)
    path = tmp_path / "hands.jsonl"
    with path.open("w") as stream:
        write_tracks(stream, [TrackedFrame(k, k / 30, 640, 480, (hand, a_hand(id=9))) for k in range(10)], signs)
    record, without = json.loads(path.read_text().splitlines()[-1])["hands"]
    joints = xr_joints(fist)
    np.testing.assert_allclose(record["xr"]["positions_m"], joints.positions_m, atol=1e-5)
    np.testing.assert_allclose(record["xr"]["orientations"], joints.orientations, atol=1e-4)
    assert len(record["xr"]["radii_m"]) == NUM_XR_JOINTS
    palm = joints.positions_m[[XrJoint.WRIST, XrJoint.MIDDLE_PROXIMAL]].mean(axis=0)
    np.testing.assert_allclose(record["palm_pose"]["position_m"], palm, atol=1e-5)
    assert record["grasp_strength"] == 1 and len(record["pinch_strengths"]) == 4
    assert record["gesture"] == "thumbs_up"
    assert "xr" not in without and "gesture" not in without
    read = read_tracks(path)[-1].hands[0]
    np.testing.assert_allclose(read.velocities_px, POINTS - 20, atol=0.0051)
    np.testing.assert_allclose(read.angle_velocities, turning, atol=6e-5)
    np.testing.assert_allclose(read.pose.points(), fist.points(), atol=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"orientation": [0, 0, 0, 0]}, "hands\\[0\\]: pose: not a rotation"),
        ({"position_m": [0, 0]}, "'position_m' must be 3 numbers"),
        ({"joint_angles": {"left_index_flexion": 0.1}}, "'joint_angles' must name all joints of one hand"),
        ({"joint_angles": dict.fromkeys(joint_names(Side.LEFT), "bent")}, "'joint_angles' must be 20 numbers"),
        ({"joint_angles": dict.fromkeys(joint_names(Side.LEFT))}, "'joint_angles' must not hold null"),
        ({"palm_m": 0}, "'palm_m' and 'finger_ratio' must be positive"),
        ({"bone_ratios": [9.0] * 20}, "bone_ratios must be 20 numbers between 0.5 and 2"),
    ],
)
def test_malformed_poses_name_file_and_line(tmp_path, change, message):
    written_and_read(tmp_path, a_posed_hand(a_pose()))
    path = tmp_path / "hands.jsonl"
    frame = json.loads(path.read_text())
    frame["hands"][0]["pose"] |= change
    path.write_text(json.dumps(frame))
    with pytest.raises(RecordError, match=message) as caught:
        read_tracks(path)
    assert f"{path}:1" in str(caught.value)


def test_record_has_the_documented_keys():
    record = hand_to_record(a_hand())
    assert list(record) == [
        "id", "side", "side_score", "score", "source", "box", "keypoints_px", "keypoint_scores", "keypoints_m", "scale"
    ]  # fmt: skip
    assert record["side"] == "right" and record["source"] == "propagated" and record["scale"] == "none"
    assert record["keypoints_m"] is None
    assert record["box"] == {"center_px": [20.5, 21.0], "size_px": [40.0, 40.0], "angle_rad": 0.25}


def test_nan_is_written_as_null_and_read_as_nan(tmp_path):
    points = POINTS.copy()
    points[4] = np.nan
    path = tmp_path / "hands.jsonl"
    with path.open("w") as stream:
        write_tracks(stream, [TrackedFrame(0, 0.0, 64, 48, (a_hand(keypoints_px=points),), {"total": float("nan")})])
    text = path.read_text()
    assert "NaN" not in text and json.loads(text)["hands"][0]["keypoints_px"][4] == [None, None]
    assert json.loads(dumps({"a": [np.float32("inf"), np.int64(3)]})) == {"a": [None, 3]}


def test_null_keypoints_read_back_as_nan(tmp_path):
    points = POINTS.copy()
    points[4] = np.nan
    stream = io.StringIO()
    write_tracks(stream, [TrackedFrame(0, 0.0, 64, 48, (a_hand(keypoints_px=points),))])
    path = tmp_path / "hands.jsonl"
    path.write_text(stream.getvalue())
    (hand,) = read_tracks(path)[0].hands
    assert np.isnan(hand.keypoints_px[4]).all() and np.isfinite(np.delete(hand.keypoints_px, 4, axis=0)).all()


def test_labels_read_back(tmp_path):
    full = LabelledHand(Side.LEFT, (1.0, 2.0, 30.5, 40.0), POINTS, np.arange(21) % 2 == 0, np.full((21, 3), 0.5), id=7)
    images = [
        LabelledImage(640, 480, (full, LabelledHand(box_px=(0.0, 0.0, 5.0, 5.0))), file="images/1.jpg", person="ann"),
        LabelledImage(
            320,
            240,
            (),
            video="clip.mp4",
            frame=17,
            ignore=((0.0, 0.0, 9.0, 9.0),),
            camera={"model": "pinhole", "K": [500, 500, 160, 120], "D": []},
        ),
    ]
    write_labels(tmp_path / "labels.jsonl", images)
    first, second = read_labels(tmp_path)  # the folder finds its labels.jsonl
    hand, box_only = first.hands
    assert (hand.side, hand.box_px, hand.id) == (Side.LEFT, (1.0, 2.0, 30.5, 40.0), 7)
    assert np.array_equal(hand.keypoints_px, POINTS) and np.array_equal(hand.keypoints_m, full.keypoints_m)
    assert hand.visible.tolist() == full.visible.tolist()
    assert box_only.keypoints_px is None and box_only.bounds() == (0.0, 0.0, 5.0, 5.0)
    assert (first.file, first.person, first.video) == ("images/1.jpg", "ann", None)
    assert (second.video, second.frame, second.ignore) == ("clip.mp4", 17, ((0.0, 0.0, 9.0, 9.0),))
    assert second.camera["K"] == [500, 500, 160, 120]
    assert LabelledHand(keypoints_px=POINTS).bounds() == (0.125, 1.125, 40.125, 41.125)


GOOD_LABEL = {"file": "a.jpg", "width": 64, "height": 48, "hands": [{"side": "left", "box": [0, 0, 9, 9]}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": None}, "'width' has the wrong type"),
        ({"width": 0}, "'width' must be positive"),
        ({"file": None}, "needs either 'file' or 'video'"),
        ({"video": "clip.mp4", "frame": 1}, "needs either 'file' or 'video'"),
        ({"file": None, "video": "clip.mp4"}, "'frame' is missing"),
        ({"hands": {}}, "'hands' has the wrong type"),
        ({"hands": [7]}, r"hands\[0\]: expected an object"),
        (
            {"hands": [{"side": "both", "box": [0, 0, 9, 9]}]},
            r"hands\[0\]: 'side' must be one of 'left', 'right', None",
        ),
        ({"hands": [{"side": None}]}, r"hands\[0\]: needs a 'box' or 'keypoints_px'"),
        ({"hands": [{"box": [9, 0, 0, 9]}]}, r"'box' must be \[x0, y0, x1, y1\]"),
        ({"hands": [{"box": [0, 0, 9]}]}, "'box' must be 4 numbers"),
        ({"hands": [{"keypoints_px": [[0, 0]] * 20}]}, "'keypoints_px' must be 21 x 2 numbers"),
        ({"hands": [{"keypoints_px": [[0, None]] * 21}]}, "'keypoints_px' must not hold null"),
        ({"hands": [{"box": [0, 0, 9, 9], "visible": [1] * 21}]}, "'visible' must be 21 times"),
        ({"ignore": [[0, 0, 1]]}, r"ignore\[0\]: 'ignore' must be 4 numbers"),
    ],
)
def test_malformed_labels_name_file_and_line(tmp_path, change, message):
    path = tmp_path / "labels.jsonl"
    record = {key: value for key, value in {**GOOD_LABEL, **change}.items() if key != "file" or value is not None}
    path.write_text(json.dumps(GOOD_LABEL) + "\n\n" + json.dumps(record) + "\n")
    with pytest.raises(RecordError, match=message) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}:3: ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"id": 3', '"id": "three"', r"hands\[0\]: 'id' has the wrong type"),
        ('"propagated"', '"guessed"', "'source' must be one of 'detected', 'propagated', 'predicted'"),
        ('"none"', '"huge"', "'scale' must be one of"),
        ("[40.0, 40.0]", "[40.0, 0]", "'size_px' must be positive"),
        ('"frame": 0, ', "", "'frame' is missing"),
        ('"stamp_s": 0.0', '"stamp_s": NaN', "NaN is not JSON, write null"),
        ('{"frame"', '{frame"', "not a JSON object"),
    ],
)
def test_malformed_tracks_name_file_and_line(tmp_path, old, new, message):
    stream = io.StringIO()
    write_tracks(stream, [TrackedFrame(0, 0.0, 64, 48, (a_hand(),))])
    assert old in stream.getvalue()
    path = tmp_path / "hands.jsonl"
    path.write_text(stream.getvalue().replace(old, new))
    with pytest.raises(RecordError, match=message) as caught:
        read_tracks(path)
    assert f"{path}:1" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(RecordError, match=r"cannot read .*labels\.jsonl"):
        read_labels(tmp_path)
