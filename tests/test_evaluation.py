"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from blob_models import hand_at

from hand_tracking_ros.errors import RecordError
from hand_tracking_ros.evaluation import motion
from hand_tracking_ros.evaluation.agreement import agreement, repeated
from hand_tracking_ros.evaluation.detection import detection_metrics
from hand_tracking_ros.evaluation.keypoints import joint_errors, keypoint_metrics
from hand_tracking_ros.evaluation.matching import match
from hand_tracking_ros.evaluation.tracking import self_metrics, track_metrics
from hand_tracking_ros.geometry import Box, box_around
from hand_tracking_ros.records import LabelledHand, LabelledImage, TrackedFrame
from hand_tracking_ros.skeleton import Side, palm_length
from hand_tracking_ros.types import Hand, HandBox, Scale, Source

PALM = float(palm_length(hand_at(0, 0)))


def found_box(x, y, side, score, right=0.9) -> HandBox:
    return HandBox(Box((x, y), (side, side)), score, right)


def boxed(x, y, width, height, side=Side.RIGHT) -> LabelledHand:
    return LabelledHand(side, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def a_hand(points, identity=1, side=Side.RIGHT, points_3d=None) -> Hand:
    return Hand(
        id=identity,
        side=side,
        side_score=0.9,
        score=0.9,
        source=Source.PROPAGATED,
        box=box_around(points),
        keypoints_px=np.array(points),
        keypoint_scores=np.ones(21),
        **({} if points_3d is None else {"scale": Scale.ASSUMED, "points_3d": np.array(points_3d)}),
    )


def frame(index, *hands, rate=50.0, ms=None) -> TrackedFrame:
    return TrackedFrame(index, index / rate, 640, 480, hands, {} if ms is None else {"total": ms})


def truth_frame(index, *hands, rate=50.0, ignore=()) -> LabelledImage:
    return LabelledImage(640, 480, hands, video="v.mp4", frame=index, stamp_s=index / rate, ignore=ignore)


# Matching


def test_match_is_one_to_one_cheapest_first():
    costs = np.array([[0.3, 0.1], [0.2, 0.15], [np.nan, 0.9]])
    assert match(costs, 0.5) == [(0, 1), (1, 0)]
    assert match(costs, 0.15) == [(0, 1)]
    assert match(np.empty((0, 3)), 1.0) == []


# Detection


def test_average_precision_by_hand():
    """Scores 0.9 hit, 0.8 miss, 0.7 hit, of 3 hands: AP = 1/3 * 1 + 1/3 * 2/3."""
    labels = [LabelledImage(640, 480, (boxed(100, 100, 60, 60), boxed(400, 100, 60, 40), boxed(400, 400, 60, 60)), "a")]
    found = [[found_box(100, 100, 60, 0.9), found_box(250, 250, 60, 0.8), found_box(403, 100, 60, 0.7)]]
    metrics = detection_metrics(labels, found)
    everything = metrics["by_size"]["all"]
    assert (metrics["images"], metrics["hands"]) == (1, 3)
    assert everything["ap50"] == pytest.approx(1 / 3 + 2 / 9)
    assert everything["recall_at_0.1_fppi"] == pytest.approx(1 / 3)  # one image: no false positive is allowed
    assert metrics["center_error_radius"] == pytest.approx((0 + 3 / 30) / 2)
    assert metrics["side_accuracy"] == 1.0 and metrics["side_known"] == 2


def test_recall_at_a_tenth_false_positive_per_image():
    """10 images, one hand each; one false positive is allowed, so recall is that before the second."""
    labels = [LabelledImage(640, 480, (boxed(100, 100, 60, 60),), str(i)) for i in range(10)]
    found = [[found_box(100, 100, 60, 0.9 - 0.05 * i)] for i in range(10)]
    found[0].append(found_box(300, 300, 60, 0.83))
    found[1].append(found_box(300, 300, 60, 0.62))  # after 6 hits: 0.9 ... 0.65
    assert detection_metrics(labels, found)["by_size"]["all"]["recall_at_0.1_fppi"] == pytest.approx(0.6)


def test_sizes_are_judged_at_640_px_width_and_ignore_each_other():
    """In a 1280 px image a 100 px hand counts as 50 px; a miss of another size costs nothing."""
    labels = [LabelledImage(1280, 960, (boxed(200, 200, 100, 80), boxed(700, 500, 400, 300)), "a")]
    found = [[found_box(200, 200, 100, 0.6), found_box(1000, 100, 400, 0.9)]]
    by_size = detection_metrics(labels, found)["by_size"]
    assert [by_size[name]["hands"] for name in ("all", "<48", "48-80", "80-128", ">128")] == [2, 0, 1, 0, 1]
    assert by_size["48-80"]["ap50"] == 1.0 and by_size["48-80"]["recall_at_0.1_fppi"] == 1.0
    assert by_size[">128"]["ap50"] == 0.0
    assert np.isnan(by_size["<48"]["ap50"])


def test_one_hand_is_found_once_and_ignored_regions_do_not_count():
    labels = [LabelledImage(640, 480, (boxed(100, 100, 60, 60),), "a", ignore=((300, 300, 500, 500),))]
    twice = [[found_box(100, 100, 60, 0.8), found_box(101, 100, 60, 0.9), found_box(400, 400, 60, 0.95)]]
    assert detection_metrics(labels, twice)["by_size"]["all"]["ap50"] == 1.0  # the duplicate comes after full recall
    outside = [[found_box(100, 100, 60, 0.8), found_box(300, 300, 60, 0.95)]]  # a quarter of it inside: counts
    assert detection_metrics(labels, outside)["by_size"]["all"]["ap50"] == 0.5


def test_a_turned_hand_is_compared_with_its_own_square():
    points = hand_at(0, 0) @ np.array([[0, 1], [-1, 0]]) + [300, 200]  # fingers point right
    labels = [LabelledImage(640, 480, (LabelledHand(Side.LEFT, keypoints_px=points),), "a")]
    box = box_around(points)
    metrics = detection_metrics(labels, [[HandBox(Box(box.center_px, box.size_px, box.angle_rad + 0.1), 0.9, 0.9)]])
    assert metrics["by_size"]["all"]["ap50"] == 1.0
    assert metrics["angle_error_deg_median"] == pytest.approx(np.degrees(0.1))
    assert metrics["side_accuracy"] == 0.0


# Keypoints


def test_keypoint_metrics_by_hand():
    """Two found hands, off by 10 % and 30 % of the palm in every joint, and one missed."""
    truth = [hand_at(100, 100), hand_at(300, 100), hand_at(300, 300)]
    found = [truth[0] + [0.1 * PALM, 0], truth[1] + [0, 0.3 * PALM], None]
    sides = [Side.RIGHT, Side.LEFT, Side.RIGHT]
    metrics = keypoint_metrics(truth, found, sides, [0.9, 0.9, None])
    assert (metrics["hands"], metrics["missed"]) == (3, 1)
    assert metrics["mean_percent"] == pytest.approx(20)
    assert metrics["median_percent"] == pytest.approx(20)
    assert metrics["pck20"] == pytest.approx(1 / 3)
    assert metrics["auc50"] == pytest.approx((0.8 + 0.4 + 0) / 3)
    assert metrics["side_accuracy"] == 0.5
    assert metrics["joint_mean_percent"]["index_tip"] == pytest.approx(20)


def test_no_hand_found_is_not_perfect():
    metrics = keypoint_metrics([hand_at(0, 0)], [None], [Side.LEFT], [None])
    assert metrics["pck20"] == 0 and metrics["auc50"] == 0 and np.isnan(metrics["mean_percent"])


def test_joint_errors_are_in_percent_of_the_palm():
    points = hand_at(0, 0)
    moved = points.copy()
    moved[8] += [0.3 * PALM, 0.4 * PALM]
    assert joint_errors(points, moved)[8] == pytest.approx(50) and joint_errors(points, moved).sum() == pytest.approx(
        50
    )


# Motion


def test_procrustes_removes_rotation_scale_and_translation_but_not_mirroring():
    points = np.random.default_rng(0).normal(size=(21, 3))
    c, s = np.cos(1.0), np.sin(1.0)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    assert np.allclose(motion.procrustes_error(points, 2.5 * points @ turn + [1, 2, 3]), 0, atol=1e-9)
    assert motion.procrustes_error(points, points * [-1, 1, 1]).mean() > 0.1


def test_acceleration_with_uneven_steps():
    stamps = np.array([0.0, 0.1, 0.3, 0.35])
    assert np.allclose(motion.acceleration(stamps, 4.0 * stamps**2 + stamps), 8.0)
    still = np.zeros((4, 21, 3))
    falling = still + (4.0 * stamps**2)[:, None, None] * [0, 1, 0]
    assert motion.acceleration_error(stamps, still, falling) == pytest.approx(8.0)


def test_jitter_of_white_noise_is_its_deviation():
    random = np.random.default_rng(0)
    stamps = np.arange(400) / 60
    drift = stamps[:, None, None] * [5.0, 0.0]  # slow motion is not jitter
    points = random.normal(0, 0.5, (400, 21, 2)) + drift
    rms = np.sqrt(motion.jitter(stamps, points, np.ones(400, dtype=bool)).mean())
    assert rms == pytest.approx(0.5 * np.sqrt(2), rel=0.03)


def test_rest_is_recognised_through_jitter():
    random = np.random.default_rng(0)
    stamps = np.arange(120) / 60
    x = np.where(stamps < 1, 0.0, 200 * (stamps - 1))
    points = np.stack([hand_at(100 + dx, 100) for dx in x]) + random.normal(0, 0.3, (120, 21, 2))
    rest = motion.at_rest(stamps, points, PALM)
    assert rest[:50].all() and not rest[70:].any()


def test_lag_curve_finds_the_shift():
    stamps = np.arange(100) / 50
    truth = np.stack([hand_at(200 + 100 * np.sin(3 * t), 200) for t in stamps])
    late = np.stack([hand_at(200 + 100 * np.sin(3 * (t - 0.033)), 200) for t in stamps])
    costs, used = motion.lag_curve(stamps, truth, late)
    assert motion.LAGS_S[np.argmin(costs)] == pytest.approx(0.033, abs=0.0015)
    assert used == 87  # 0.2 s at the start and 0.05 s at the end are left out


def test_runs_split_at_gaps():
    stamps = np.array([0.0, 0.02, 0.04, 0.5, 0.52])
    assert motion.runs(stamps) == [slice(0, 3), slice(3, 5)]
    assert motion.runs(np.array([])) == []


# Tracks


def moving(index, x0=200.0):
    return hand_at(x0 + 4 * index, 200)


def test_track_metrics_by_hand():
    """40 frames, two labelled hands. The left one is found in 30 frames, 10 % off; its id changes once, its side flips
    once and back. The right one is always found, exactly. In 4 frames there is one hand too many, and one in an ignored
    region in all."""
    labels, tracked = [], []
    for i in range(40):
        left, right = moving(i), moving(i, 400)
        region = ((0, 380, 100, 480),)
        labels.append(
            truth_frame(
                i,
                LabelledHand(Side.LEFT, keypoints_px=left),
                LabelledHand(Side.RIGHT, keypoints_px=right),
                ignore=region,
            )
        )
        hands = [a_hand(right, 2)]
        if i < 30:
            late = i >= 20
            hands.append(
                a_hand(left + np.array([0, 0.1 * PALM]), 5 if late else 1, Side.RIGHT if i == 10 else Side.LEFT)
            )
        if i < 4:
            hands.append(a_hand(hand_at(500, 420), 9))
        hands.append(a_hand(hand_at(50, 430), 10))
        tracked.append(frame(i, *hands, ms=float(i)))
    metrics = track_metrics([(labels, tracked)])
    assert (metrics["videos"], metrics["frames"], metrics["hands"]) == (1, 40, 80)
    assert metrics["recall"] == pytest.approx(70 / 80) == metrics["recall_within_20_percent"]
    assert metrics["false_hands_per_frame"] == pytest.approx(0.1)
    assert metrics["mean_percent"] == pytest.approx(10 * 30 / 70)
    assert metrics["id_switches"] == 1
    assert metrics["side_flips"] == 2  # there and back
    assert metrics["side_accuracy"] == pytest.approx(69 / 70)
    assert metrics["lag_ms"] == pytest.approx(0, abs=1.01)
    assert metrics["latency_ms_p50"] == 19.5
    assert np.isnan(metrics["mpjpe_mm"]) and np.isnan(metrics["jitter_px"])  # nothing in metres, nothing at rest


def test_frames_that_the_tracker_did_not_write_count_as_missed():
    labels = [truth_frame(i, LabelledHand(keypoints_px=moving(i))) for i in range(10)]
    metrics = track_metrics([(labels, [frame(0, a_hand(moving(0)))])])
    assert metrics["recall"] == pytest.approx(0.1)


def test_lag_of_a_track():
    labels = [truth_frame(i, LabelledHand(keypoints_px=moving(i))) for i in range(60)]
    tracked = [frame(i, a_hand(moving(i - 2))) for i in range(60)]  # two frames at 50 Hz behind
    assert track_metrics([(labels, tracked)])["lag_ms"] == pytest.approx(40, abs=1.01)


def test_metric_errors_of_a_track():
    """A hand at rest, 10 mm too far away, shaking by +-1 mm: MPJPE, MPJPA and jitter follow; PA only sees the shake."""
    shape = np.column_stack([hand_at(0, 0) / 1000, np.linspace(0.5, 0.52, 21)])
    labels, tracked = [], []
    for i in range(40):
        labels.append(truth_frame(i, LabelledHand(keypoints_px=hand_at(200, 200), keypoints_m=shape)))
        shake = 0.001 * (-1) ** i
        tracked.append(frame(i, a_hand(hand_at(200 + shake * 1000, 200), points_3d=shape + np.array([shake, 0, 0.01]))))
    metrics = track_metrics([(labels, tracked)])
    assert metrics["mpjpe_mm"] == pytest.approx(np.hypot(10, 1))
    assert metrics["pa_mpjpe_mm"] == pytest.approx(0, abs=1e-6)
    assert metrics["mpjpa_m_s2"] == pytest.approx(0.004 * 50**2)  # x1 - 2 x0 + x-1 = 4 mm, at 50 Hz
    assert metrics["jitter_px"] == pytest.approx(2 / np.sqrt(1.5))  # 2 px off the neighbours' line
    assert metrics["jitter_mm"] == pytest.approx(2 / np.sqrt(1.5))
    assert metrics["rest_samples"] == 38
    assert np.isnan(metrics["lag_ms"])  # at rest no shift fits better than another


def test_labels_without_keypoints_cannot_judge_tracks():
    with pytest.raises(RecordError, match=r"v\.mp4, frame 0: a hand has no keypoints_px"):
        track_metrics([([truth_frame(0, boxed(9, 9, 9, 9))], [])])


def test_self_metrics():
    """20 frames of two hands; one track is taken over by another id, one changes side, once both are left."""
    tracked = []
    for i in range(20):
        one = a_hand(moving(i), 1 if i < 10 else 7, Side.LEFT)
        two = a_hand(moving(i, 400), 2, Side.LEFT if i == 15 else Side.RIGHT)
        tracked.append(frame(i, one, two, ms=2.0))
    metrics = self_metrics(tracked)
    assert (metrics["frames"], metrics["frames_with_hand"], metrics["hands"], metrics["ids"]) == (20, 20, 40, 3)
    assert metrics["id_switches"] == 1 and metrics["side_flips"] == 2
    assert metrics["left_right_consistency"] == pytest.approx(0.95)
    assert metrics["latency_ms_p99"] == 2.0


def test_a_peer_without_ids_is_linked_by_place():
    tracked = [frame(i, a_hand(moving(i), 0, Side.LEFT), a_hand(moving(i, 400), 0)) for i in range(20)]
    metrics = self_metrics(tracked)
    assert metrics["ids"] is None and metrics["id_switches"] is None
    assert metrics["side_flips"] == 0


def test_no_frames():
    assert self_metrics([])["frames"] == 0
    assert agreement([], [])["reference_hands"] == 0


def test_agreement_by_hand():
    """Reference: 2 hands in 10 frames. Ours: one within 20 %, the other 30 % off, an extra one; frame 9 missing."""
    reference = [frame(i, a_hand(hand_at(200, 200), 0, Side.LEFT), a_hand(hand_at(400, 200), 0)) for i in range(10)]
    near = a_hand(hand_at(200 + 0.15 * PALM, 200))
    off = a_hand(hand_at(400 + 0.3 * PALM, 200))
    ours = [frame(i, near, off, a_hand(hand_at(500, 400))) for i in range(9)]
    result = agreement(reference, ours)
    assert (result["reference_hands"], result["matched"], result["frames_missing"]) == (20, 9, 1)
    assert result["share"] == pytest.approx(0.45)
    assert result["median_error_percent"] == pytest.approx(15)
    assert result["extra_hands"] == 18 and result["same_side"] == 0.0 and result["frames_with_hand"] == 9
    assert agreement(reference, ours, limit_palm=0.4)["share"] == pytest.approx(0.9)


def test_what_a_reference_repeats():
    """Of two hands it sees one again 15 % off, the other 30 %; a frame that it did not see again repeats nothing."""
    sure, unsure = a_hand(hand_at(200, 200), 0, Side.LEFT), a_hand(hand_at(400, 200), 0)
    again = [a_hand(hand_at(400 + 0.3 * PALM, 200)), a_hand(hand_at(200 + 0.15 * PALM, 200))]
    kept = repeated([frame(0, sure, unsure), frame(1, sure)], [frame(0, *again)])
    assert [f.frame for f in kept] == [0, 1]
    assert kept[0].hands == (sure,) and kept[1].hands == ()
    assert repeated([frame(0, sure, unsure)], [frame(0, *again)], limit_palm=0.4)[0].hands == (sure, unsure)
