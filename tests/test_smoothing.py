"""The filter stage: handedness over time, what is published when, and the 3D lift with its velocities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hand_tracking_ros.config import FilterConfig, PoseConfig, TrackConfig
from hand_tracking_ros.fitting import HandView
from hand_tracking_ros.geometry import NOWHERE, box_around
from hand_tracking_ros.kinematics import HandPose, exp_rotation
from hand_tracking_ros.lifting import HEATMAP_SIGMA, PALM_RATIOS, palm_length_px, unshrunk
from hand_tracking_ros.overlay import draw_hands
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.smoothing import HandFilter
from hand_tracking_ros.types import Camera, HandKeypoints, Scale, Source

# A flat right hand, palm to the camera, in palm lengths: the proportions of lifting.PALM_RATIOS hold.
FLAT = np.array([(0, 0), (-0.25, -0.2), (-0.5, -0.45), (-0.65, -0.7), (-0.75, -0.95), (-0.3, -0.998), (-0.33, -1.4),
                 (-0.34, -1.65), (-0.35, -1.85), (0, -1), (0, -1.45), (0, -1.7), (0, -1.95), (0.2, -0.94),
                 (0.23, -1.35), (0.25, -1.6), (0.26, -1.8), (0.35, -0.86), (0.42, -1.15),
                 (0.46, -1.35), (0.5, -1.5)])  # fmt: skip
OFF = FilterConfig(kind="none")


def observed(center=(320.0, 300.0), palm_px=80.0, *, id=1, presence=0.9, right=0.9, depth=None) -> HandKeypoints:
    points = FLAT * palm_px + center
    depth = np.zeros(21) if depth is None else depth
    return HandKeypoints(id, box_around(points), Source.PROPAGATED, points, np.ones(21), depth, presence, right)


REST = np.tile([0.4, 0.0, 0.5, 0.3], 5)


def run(stream, config=FilterConfig(), track=TrackConfig(), fps=30.0):
    """Apply to frames of observations; the hands of every frame."""
    hand_filter = HandFilter(config, track)
    return [hand_filter.apply(frame, k / fps) for k, frame in enumerate(stream)]


def test_side_is_an_average_that_single_wrong_frames_do_not_flip():
    sides = [0.9, 0.9, 0.1, 0.9, 0.9, 0.2, 0.9, 0.9, 0.9, 0.9]
    frames = run([[observed(right=r)] for r in sides])
    assert [hands[0].side for hands in frames] == [Side.RIGHT] * len(sides)
    assert 0.75 < frames[-1][0].side_score < 0.9


def test_a_wrong_first_impression_is_corrected():
    frames = run([[observed(right=0.3)]] + [[observed(right=0.97)]] * 60)
    assert frames[0][0].side == Side.LEFT
    assert frames[-1][0].side == Side.RIGHT and frames[-1][0].side_score > 0.9


@pytest.mark.parametrize("source, frames", [(Source.DETECTED, 2), (Source.PROPAGATED, 30)])
def test_a_hand_that_is_found_again_may_be_the_other_one(source, frames):
    """As when one hand leaves and the other one comes in, and the track goes on with it."""
    right, unseen = [observed(right=0.98)], [observed(presence=0.0)]
    again = [replace(observed(right=0.3), source=source)]
    left = [observed(right=0.03)]
    hands = run([right] * 60 + [unseen] * 2 + [again] + [left] * 120)
    named = [frame[0].side for frame in hands[62:]]
    turned = named.index(Side.LEFT)
    assert named[turned:] == [Side.LEFT] * (len(named) - turned)
    assert turned < frames if source == Source.DETECTED else turned >= frames


@pytest.mark.parametrize("first, second, expected", [
    pytest.param(0.95, 0.6, (Side.RIGHT, Side.LEFT), id="both look right: the surer one is"),
    pytest.param(0.4, 0.05, (Side.RIGHT, Side.LEFT), id="both look left: the surer one is"),
    pytest.param(0.1, 0.9, (Side.LEFT, Side.RIGHT), id="no conflict"),
])  # fmt: skip
def test_two_hands_of_one_person_differ(first, second, expected):
    pair = [observed((200, 300), id=1, right=first), observed((460, 300), id=2, right=second)]
    hands = run([pair] * 5)[-1]
    assert tuple(hand.side for hand in hands) == expected
    free = run([pair] * 5, track=TrackConfig(one_person=False))[-1]
    assert free[0].side == (Side.RIGHT if first > 0.5 else Side.LEFT)


def test_two_hands_that_surely_are_of_one_side_belong_to_two_people():
    """Only after half a second, and not where one of them is in doubt; then they stay so through some doubt."""

    def pair(second):
        return [observed((200, 300), id=1, right=0.99), observed((460, 300), id=2, right=second)]

    def same(frames):
        return [frame[0].side == frame[1].side for frame in frames]

    sure = same(run([pair(0.99)] * 30))
    assert not any(sure[:15]) and all(sure[16:])
    assert not any(same(run([pair(0.95)] * 60)))  # 0.95 is less than the 0.97 that two hands in view are a pair
    doubtful = run([pair(0.99)] * 30 + [pair(0.9)] * 5)
    assert same(doubtful)[-5:] == [True] * 5
    assert not any(same(run([pair(0.99)] * 30 + [pair(0.3)] * 30))[-5:])
    two_right = run([pair(0.99)] * 30)[-1]
    assert [hand.side for hand in two_right] == [Side.RIGHT] * 2 and two_right[1].side_score > 0.97


def test_a_hand_not_seen_is_predicted_for_the_coast_time_then_gone():
    moving = [[observed((300 + 6 * k, 300))] for k in range(15)]
    lost = [[observed((0, 0), presence=0.0)]] * 6
    frames = run(moving + lost, OFF, TrackConfig(coast_s=0.1))
    assert [len(hands) for hands in frames[15:]] == [1, 1, 1, 0, 0, 0]
    predicted = frames[15][0]
    assert predicted.source == Source.PREDICTED
    assert predicted.keypoints_px[0, 0] == pytest.approx(300 + 6 * 15, abs=0.5)
    assert predicted.velocities_px[0, 0] == pytest.approx(180.0, abs=1.0)
    assert np.all(predicted.keypoint_scores < frames[14][0].keypoint_scores)


PINHOLE, FISHEYE = Camera(580, 580, 320, 240), Camera(580, 580, 320, 240, "fisheye", (0.01,) * 4)


@pytest.mark.parametrize("camera", [None, PINHOLE, FISHEYE], ids=["relative", "pinhole", "fisheye"])
@pytest.mark.parametrize("config", [OFF, FilterConfig()], ids=["none", "one_euro"])
def test_a_hand_that_shrinks_while_it_is_lost_does_not_fly_away(config, camera):
    """The palm is extrapolated as well: towards zero, which would be infinitely far away."""
    hand_filter = HandFilter(config, TrackConfig(coast_s=0.15), PoseConfig(enabled=False))
    stream = [observed(palm_px=palm) for palm in (120.0, 100.0, 80.0, 60.0, 40.0)]
    frames = [hand_filter.apply([hand], k / 30, camera)[0] for k, hand in enumerate(stream)]
    last = np.abs(frames[-1].points_3d).max()
    for k in range(5, 9):
        (hand,) = hand_filter.apply([observed(palm_px=40.0, presence=0.0)], k / 30, camera)
        assert np.abs(hand.points_3d).max() < 3 * last
        assert np.isfinite(hand.velocities_3d).all() and np.abs(hand.velocities_3d).max() < 3 * last * 30


def test_a_coast_longer_than_the_largest_gap_is_no_error():
    frames = run([[observed()]] + [[observed(presence=0.0)]] * 25, track=TrackConfig(coast_s=0.8, max_gap_s=0.5))
    assert [len(hands) for hands in frames] == [1] * 25 + [0]
    assert all(np.isfinite(hands[0].keypoints_px).all() for hands in frames[:25])


def test_noisy_depth_does_not_shake_the_image_points():
    """Depth noise of 10 % of the palm on a hand at rest leaves x and y nearly as steady as no depth noise."""

    def shake(depth_noise: float) -> float:
        rng = np.random.default_rng(0)
        frames = []
        for _ in range(150):
            base = observed(depth=rng.normal(0, depth_noise, 21))
            points = base.keypoints_px + rng.normal(0, 1.0, (21, 2))
            frames.append([HandKeypoints(1, base.box, base.source, points, np.ones(21), base.depth_rel, 0.9, 0.9)])
        return float(np.array([hands[0].keypoints_px for hands in run(frames)[30:]]).std(axis=0).mean())

    assert shake(0.1) < 1.15 * shake(0.0)


def test_a_new_hand_needs_more_presence_than_a_known_one():
    track = TrackConfig(start_presence=0.6, keep_presence=0.4)
    frames = run([[observed(presence=p)] for p in (0.5, 0.7, 0.5, 0.3)], OFF, track)
    assert [len(hands) for hands in frames] == [0, 1, 1, 1]
    assert [hands[0].source for hands in frames[1:]] == [Source.PROPAGATED, Source.PROPAGATED, Source.PREDICTED]


@pytest.mark.parametrize("kind", ["none", "one_euro", "kalman"])
def test_after_a_time_jump_the_filter_equals_a_fresh_one(kind):
    hand_filter = HandFilter(FilterConfig(kind=kind))
    for k in range(20):
        hand_filter.apply([observed((300 + 9 * k, 300))], 100 + k / 30)
    after = hand_filter.apply([observed((100, 100))], 1.0)[0]
    np.testing.assert_allclose(after.keypoints_px, observed((100, 100)).keypoints_px)
    np.testing.assert_allclose(after.velocities_px, 0)


@pytest.mark.parametrize("kind, most", [("one_euro", 0.5), ("kalman", 0.75)])
def test_noise_at_rest_is_reduced(kind, most):
    """1 px on a palm of 80 px. The Kalman filter is tuned for speed, the one-euro filter also for rest."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(120):
        clean = observed()
        noisy = clean.keypoints_px + rng.normal(0, 1.0, (21, 2))
        frames.append([HandKeypoints(1, clean.box, clean.source, noisy, np.ones(21), np.zeros(21), 0.9, 0.9)])
    out = np.array([hands[0].keypoints_px for hands in run(frames, FilterConfig(kind=kind))[30:]])
    assert out.std(axis=0).mean() < most


def test_relative_points_have_the_wrist_at_the_origin_and_the_palm_as_unit():
    hand = run([[observed(palm_px=73.0)]], OFF)[0][0]
    assert hand.scale == Scale.RELATIVE
    np.testing.assert_allclose(hand.points_3d[0], 0)
    np.testing.assert_allclose(hand.points_3d[:, :2], FLAT, atol=0.02)
    assert np.linalg.norm(hand.points_3d[9]) == pytest.approx(1.0, abs=0.02)


def test_with_a_camera_points_and_velocities_are_metric():
    camera, palm_m, depth_m = Camera(600, 600, 320, 240), 0.09, 0.6
    palm_px = 600 * palm_m / depth_m
    hand_filter = HandFilter(FilterConfig(kind="none"), pose=PoseConfig(enabled=False, palm_m=palm_m))
    for k in range(10):  # 0.3 m/s to the right
        shift_px = 600 * 0.3 * (k / 30) / depth_m
        hand = hand_filter.apply([observed((300 + shift_px, 280), palm_px)], k / 30, camera)[0]
    assert hand.scale == Scale.ASSUMED
    np.testing.assert_allclose(hand.points_3d[:, 2], depth_m, rtol=0.02)
    span = np.linalg.norm(hand.points_3d[9] - hand.points_3d[0])
    assert span == pytest.approx(palm_m, rel=0.02)
    np.testing.assert_allclose(hand.velocities_3d, np.tile([0.3, 0, 0], (21, 1)), atol=0.01)


def spread(points: np.ndarray) -> np.ndarray:
    """Mean square distance from their middle, (...), of points (..., N, 2)."""
    return ((points - points.mean(axis=-2, keepdims=True)) ** 2).sum(axis=-1).mean(axis=-1)


@pytest.mark.parametrize("score", [0.3, 0.5, 0.8])
def test_a_doubtful_hand_gets_the_size_that_hands_have_that_look_so(score):
    """Means of heatmaps are nearer to each other than the joints, which lie anywhere in the heatmaps."""
    rng, side_px = np.random.default_rng(0), 100.0
    means = rng.normal(200, 22, (21, 2))
    sigma = HEATMAP_SIGMA * side_px * np.sqrt(1 / score**2 - 1)
    truth = np.sqrt(spread(means + rng.normal(0, sigma, (2000, 21, 2))).mean())
    grown = unshrunk(means, np.full(21, score), side_px)
    assert np.sqrt(spread(grown)) == pytest.approx(truth, rel=0.03)
    np.testing.assert_allclose(grown.mean(axis=0), means.mean(axis=0))


def test_sure_keypoints_stay_where_they_are_and_so_do_gaps():
    points = np.random.default_rng(1).normal(200, 22, (21, 2))
    np.testing.assert_allclose(unshrunk(points, np.ones(21), 100.0), points)
    points[4] = np.nan
    grown = unshrunk(points, np.full(21, 0.4), 100.0)
    assert np.isnan(grown[4]).all() and np.isfinite(np.delete(grown, 4, axis=0)).all()


@pytest.mark.parametrize("tilt_deg", [0, 30, 60, 75])
def test_palm_length_does_not_shrink_when_the_hand_tilts(tilt_deg):
    tilt = np.radians(tilt_deg)
    points = np.column_stack([FLAT[:, 0], FLAT[:, 1] * np.cos(tilt)]) * 80
    depth = FLAT[:, 1] * np.sin(tilt)
    assert palm_length_px(points, depth - depth[9]) == pytest.approx(80, rel=0.04)
    assert len(PALM_RATIOS) == 5


@pytest.mark.parametrize("kind", ["none", "one_euro", "kalman"])
@pytest.mark.parametrize("camera", [None, Camera(600.0, 600.0, 320.0, 240.0)], ids=["image", "metres"])
def test_prediction_leads_by_what_the_hand_moves_in_that_time(kind, camera):
    speed_px, lead_s, frames = 60.0, 0.1, 45
    config = {"kind": kind, "min_cutoff_hz": 3.0}

    def last(predict_s: float):
        hand_filter = HandFilter(FilterConfig(**config, predict_s=predict_s))
        for k in range(frames):
            seen = [observed((200 + speed_px * k / 30, 300.0))]
            (hand,) = hand_filter.apply(seen, k / 30, camera)
        return hand

    now, later = last(0.0), last(lead_s)
    led = later.keypoints_px - now.keypoints_px
    assert np.abs(led - [speed_px * lead_s, 0.0]).max() < 1.0
    assert (later.box.center_px[0] - now.box.center_px[0]) == pytest.approx(speed_px * lead_s, abs=1.0)
    if camera is not None:
        led_m = (later.points_3d - now.points_3d)[:, 0]
        moved_m = speed_px * lead_s * now.points_3d[9, 2] / camera.fx
        assert led_m.mean() == pytest.approx(moved_m, rel=0.15)
        assert later.points_3d[0, 0] - now.points_3d[0, 0] == pytest.approx(
            later.pose.position_m[0] - now.pose.position_m[0]
        )


def test_a_hand_that_coasts_is_predicted_as_well():
    track = TrackConfig(coast_s=0.5, max_gap_s=0.1)
    hand_filter = HandFilter(FilterConfig(kind="none", predict_s=0.2), track)
    for k in range(6):
        hand_filter.apply([observed((200 + 10 * k, 300))], k / 30)
    (hand,) = hand_filter.apply([observed((250, 300), presence=0.0)], 8 / 30)
    assert hand.source == Source.PREDICTED
    assert hand.keypoints_px[0, 0] == pytest.approx(250 + 10 * (3 + 6))


def test_poses_end_when_the_camera_is_no_longer_known():
    lens, own = Camera(500, 500, 320, 240), HandFilter()
    for frame in range(10):
        (hand,) = own.apply([observed()], frame / 30, lens)
    assert hand.pose is not None and hand.scale == Scale.ASSUMED
    (hand,) = own.apply([observed()], 10 / 30, None)
    assert hand.pose is None and hand.scale == Scale.RELATIVE and np.isfinite(hand.points_3d).all()
    (hand,) = own.apply([observed()], 11 / 30, lens)
    assert hand.pose is not None


def test_a_hand_without_a_place_in_the_image_has_a_pose_and_no_keypoints():
    """Cameras of a rig may see what the first one has no place for."""
    first, truth = Camera(500, 500, 320, 240), HandPose(Side.RIGHT, np.eye(3), np.array([0.1, 0, -0.4]), REST, 0.088)
    back = exp_rotation(np.array([0, np.pi, 0]))
    points, own = truth.points(), HandFilter()
    for frame in range(10):
        other = [
            HandView(first, first.project(points @ back.T + shift), np.ones(21), np.full(21, np.nan), None, back, shift)
            for shift in (np.zeros(3), np.array([0.1, 0, 0]))
        ]
        nowhere = replace(observed(right=0.9), keypoints_px=np.full((21, 2), np.nan), box=NOWHERE)
        (hand,) = own.apply([nowhere], frame / 30, first, {1: other})
    assert np.linalg.norm(hand.points_3d - points, axis=1).mean() < 0.01
    assert np.isnan(hand.keypoints_px).all() and hand.box == NOWHERE and hand.source != Source.PREDICTED
    gone = replace(nowhere, presence=0.0, source=Source.PREDICTED)
    (coasting,) = own.apply([gone], 10 / 30, first)
    assert coasting.id == hand.id and coasting.source == Source.PREDICTED
    image = np.full((480, 640, 3), 90, np.uint8)
    np.testing.assert_array_equal(draw_hands(image, [hand]), image)


def test_a_pose_that_no_image_has_renewed_coasts_and_ends():
    """A hand moves to a corner where this lens has no rays, and rests there: KeyNet sees it all along."""
    camera = Camera(300, 300, 320, 240, "plumb_bob", (-0.36, 0.15, 0.0, 0.0, -0.03))
    hand_filter, track = HandFilter(), TrackConfig()
    frames = [observed((320 + min(10 * k, 300), 260 + min(8 * k, 240)), 45, right=0.97) for k in range(60)]
    hands = [hand_filter.apply([seen], k / 30, camera)[0] for k, seen in enumerate(frames)]
    posed = [hand.pose is not None for hand in hands]
    assert all(posed[:20]) and not any(posed[-15:])
    for k, hand in enumerate(hands):
        if hand.pose is not None:
            assert np.isfinite(hand.points_3d).all() and np.isfinite(hand.velocities_3d).all()
            rays = np.isfinite(camera.rays(frames[k].keypoints_px)).all(axis=1)
            assert rays.any() or hand.source == Source.PREDICTED
    last = max(k for k, has in enumerate(posed) if has)
    renewed = max(k for k, hand in enumerate(hands) if hand.pose is not None and hand.source != Source.PREDICTED)
    assert 0 < (last - renewed) / 30 <= track.coast_s + 1e-6


def test_a_hand_that_was_seen_is_not_called_predicted_wherever_it_was_looked_for():
    """Flow may lose a hand, in flickering light say, that KeyNet then sees where the last motion leads."""
    (hand,) = HandFilter().apply([replace(observed(), source=Source.PREDICTED)], 0.0)
    assert hand.source == Source.PROPAGATED
    hand_filter = HandFilter()
    hand_filter.apply([observed()], 0.0)
    (unseen,) = hand_filter.apply([observed(presence=0.0)], 1 / 30)
    assert unseen.source == Source.PREDICTED


def test_the_first_view_of_another_hand_does_not_turn_a_known_one_around():
    first = [observed(right=0.93)]
    other = [observed((500.0, 300.0), id=2, right=r) for r in (0.99, 0.1, 0.1, 0.1)]
    frames = run([first] * 150 + [[*first, seen] for seen in other])
    assert {frame[0].side for frame in frames} == {Side.RIGHT}
    assert [frame[1].side for frame in frames[150:]] == [Side.LEFT] * 4


def test_the_same_settings_change_nothing_and_others_start_afresh():
    hand_filter = HandFilter()
    for k in range(5):
        hand_filter.apply([observed(presence=0.9)], k / 30)
    weak = observed(presence=0.6)  # enough to be kept, not to be new
    hand_filter.reconfigure(FilterConfig(), TrackConfig(), PoseConfig())
    assert [hand.id for hand in hand_filter.apply([weak], 5 / 30)] == [1]
    hand_filter.reconfigure(FilterConfig(beta=2.0), TrackConfig(), PoseConfig())
    assert hand_filter.apply([weak], 6 / 30) == []


def test_sides_need_no_memory_and_stamps_may_repeat():
    hand_filter = HandFilter(FilterConfig(side_memory_s=0.0))
    sides = [hand_filter.apply([observed(right=r)], t)[0].side for r, t in ((0.9, 0.0), (0.9, 0.1), (0.02, 0.1))]
    assert sides == [Side.RIGHT, Side.RIGHT, Side.LEFT]
