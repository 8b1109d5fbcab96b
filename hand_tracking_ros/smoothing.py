"""The filter stage: raw keypoints in, steady hands with handedness, velocities and 3D points out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hand_tracking_ros.config import FilterConfig, PoseConfig, TrackConfig
from hand_tracking_ros.depth import fits_size, joint_depths
from hand_tracking_ros.filters import Filter, make_filter
from hand_tracking_ros.fitting import HandFit, HandView
from hand_tracking_ros.geometry import box_around_known
from hand_tracking_ros.hand_size import HandSize, load_hand_size
from hand_tracking_ros.kinematics import HandPose
from hand_tracking_ros.lifting import depth_along_z, lift, palm_length_seen, unshrunk
from hand_tracking_ros.posing import HandPoser
from hand_tracking_ros.skeleton import NUM_JOINTS, Side
from hand_tracking_ros.tracks import SAME_SIDE
from hand_tracking_ros.types import Camera, Hand, HandKeypoints, Scale, Source

# Depth from one image is several times noisier than position: weighed by this, it neither opens the one-euro filter of
# a joint nor is it believed as much by the Kalman filter. The last row is the palm length, which changes slowly.
UNITS = np.vstack([np.tile([1.0, 1.0, 4.0], (NUM_JOINTS, 1)), [[2.0, 1.0, 1.0]]])
LEAST_PALM = 0.5  # of its length when last seen: what extrapolation leaves of a palm
FLIP_LOG_ODDS = 1.0  # evidence against the published side that it takes to change it
TWO_PEOPLE_S = 0.5  # how long two hands must surely have been of one side before they may be
KNOWN_S = 0.15  # a hand that was seen for less long has less say in which of a pair is the left one
FRAME_S = 0.03  # about that long the first frame counts


@dataclass
class _Smoothed:
    """State of one hand over time."""

    filter: Filter
    last: HandKeypoints
    started_s: float  # when it was seen first, or found again: since then its side is weighed
    seen_s: float
    right_log_odds: float = 0.0
    side: Side = Side.UNKNOWN
    side_score: float = 0.5


class HandFilter:
    """Filters the keypoints of every hand, by id, in seconds. What is not seen is extrapolated for ``coast_s``.

    Where the camera is known, a kinematic hand is fitted to the raw keypoints, and filtered as a pose (posing.py).
    ``size``: what is known of the size of the person's hands; ``depths_refused``: how often the depth of a hand was
    left out because it contradicts that. Raises ConfigError when ``pose.size_file`` has none.
    """

    def __init__(
        self,
        config: FilterConfig = FilterConfig(),
        track: TrackConfig = TrackConfig(),
        pose: PoseConfig = PoseConfig(),
    ):
        self.config, self._track, self._pose = config, track, pose
        self.size = load_hand_size(pose.size_file) if pose.size_file else HandSize(pose.palm_m)
        self.depths_refused = 0
        self.reset()

    def reconfigure(self, config: FilterConfig, track: TrackConfig, pose: PoseConfig) -> None:
        """Take over new settings. Where they differ, all hands start afresh, with their ids. A measured size stays."""
        if (config, track, pose) == (self.config, self._track, self._pose):
            return
        self.config, self._track, self._pose = config, track, pose
        if not self.size.is_measured:
            self.size = replace(self.size, palm_m=pose.palm_m)
        self.reset()

    def reset(self) -> None:
        """Forget all hands. What was measured of their size stays."""
        self._hands: dict[int, _Smoothed] = {}
        self._stamp_s = -np.inf
        self._alike: tuple[list[int], float] = [], -np.inf  # ids of hands surely of one side, and since when
        self._poser = HandPoser(self._pose, self.config, self._longest_gap_s, self.size)

    def forget_size(self) -> None:
        """Assume the size of the hands again; all hands start afresh."""
        self.size = HandSize(self._pose.palm_m)
        self.reset()

    @property
    def _longest_gap_s(self) -> float:
        return max(self._track.max_gap_s, self._track.coast_s + self.config.predict_s)

    def apply(
        self,
        keypoints: Sequence[HandKeypoints],
        stamp_s: float,
        camera: Camera | None = None,
        views: Mapping[int, Sequence[HandView]] | None = None,
    ) -> list[Hand]:
        """Hands as of ``stamp_s`` plus ``predict_s``, by id. Points in metres need the ``camera`` that took them, else
        they are relative.

        ``views``: what cameras see of each hand, by id, where that is more than the keypoints in the one ``camera``.
        """
        if not 0 <= stamp_s - self._stamp_s <= self._track.max_gap_s:
            self.reset()
        elapsed_s = stamp_s - self._stamp_s if np.isfinite(self._stamp_s) else 0.0
        self._stamp_s = stamp_s
        for hand in keypoints:
            self._take(hand, stamp_s, elapsed_s, camera)
        oldest_s = stamp_s - self._track.coast_s - 1e-9
        listed = {hand.id for hand in keypoints}
        self._hands = {i: s for i, s in self._hands.items() if s.seen_s >= oldest_s and i in listed}
        self._assign_sides()
        if camera is not None and self._pose.enabled:
            self._fit(camera, stamp_s, views or {})
            self._poser.forget(set(self._hands), oldest_s)
        else:  # metres of a camera that is no longer known
            self._poser.forget(set())
        return [self._hand(smoothed, stamp_s, camera) for _, smoothed in sorted(self._hands.items())]

    def _take(self, hand: HandKeypoints, stamp_s: float, elapsed_s: float, camera: Camera | None) -> None:
        smoothed = self._hands.get(hand.id)
        if hand.presence < (self._track.start_presence if smoothed is None else self._track.keep_presence):
            return
        if smoothed is None:
            smoothed = _Smoothed(make_filter(self.config, self._longest_gap_s), hand, stamp_s, stamp_s)
            self._hands[hand.id] = smoothed
        elif hand.source == Source.DETECTED:
            smoothed.started_s = stamp_s  # what was found again may be the other hand: its side is weighed anew
        palm_px = palm_length_seen(hand.keypoints_px, hand.depth_rel, camera)
        # A hand of which only other cameras of a rig know has no place in this image.
        known_px = palm_px if math.isfinite(palm_px) else 1.0
        smoothed.filter.take(_channels(hand, palm_px), stamp_s, known_px * UNITS)
        smoothed.last, smoothed.seen_s = hand, stamp_s
        self._weigh_side(smoothed, hand.right_score, stamp_s, elapsed_s)

    def _weigh_side(self, smoothed: _Smoothed, right_score: float, stamp_s: float, elapsed_s: float) -> None:
        """Average the log odds of being a right hand: over the hand's life at first, over ``side_memory_s`` later."""
        right_score = min(max(right_score, 0.002), 0.998)
        evidence = math.log(right_score / (1 - right_score))
        age_s = stamp_s - smoothed.started_s
        whole_s = min(age_s, self.config.side_memory_s) + elapsed_s
        share = elapsed_s / whole_s if age_s > 0 < whole_s else 1.0
        smoothed.right_log_odds += share * (evidence - smoothed.right_log_odds)

    def _assign_sides(self) -> None:
        """Name each hand's side; a named side changes only on clear evidence, so that it does not flicker."""
        hands = [self._hands[i] for i in sorted(self._hands)]
        odds = [smoothed.right_log_odds for smoothed in hands]
        pair = self._track.one_person and len(hands) == 2 and not self._two_people(hands)
        if pair:  # given that the sides differ, only the difference counts
            odds = [right * share for right, share in zip(odds, self._says(hands))]
            odds = [odds[0] - odds[1], odds[1] - odds[0]]
        for smoothed, right in zip(hands[:1] if pair else hands, odds):
            limit = {Side.RIGHT: -FLIP_LOG_ODDS, Side.LEFT: FLIP_LOG_ODDS, Side.UNKNOWN: 0.0}[smoothed.side]
            smoothed.side = Side.RIGHT if right > limit else Side.LEFT
        if pair:
            hands[1].side = Side.LEFT if hands[0].side == Side.RIGHT else Side.RIGHT
        for smoothed, right in zip(hands, odds):
            smoothed.side_score = 1 / (1 + math.exp(-right if smoothed.side == Side.RIGHT else right))

    def _says(self, hands: Sequence[_Smoothed]) -> list[float]:
        """What each hand's evidence counts, 0..1: the first frames of a new one do not overturn what is known."""
        ages_s = [min(self._stamp_s - smoothed.started_s, KNOWN_S) + FRAME_S for smoothed in hands]
        return [age_s / max(ages_s) for age_s in ages_s]

    def _two_people(self, hands: Sequence[_Smoothed]) -> bool:
        """Whether two hands have for some time been so surely of one side that they are two people's after all."""
        first, second = (smoothed.right_log_odds for smoothed in hands)
        already = hands[0].side == hands[1].side != Side.UNKNOWN
        least = math.log((1 - SAME_SIDE) / SAME_SIDE) - (FLIP_LOG_ODDS if already else 0.0)
        if first * second < 0 or min(abs(first), abs(second)) <= least:
            self._alike = [], -np.inf
            return False
        if self._alike[0] != sorted(self._hands):
            self._alike = sorted(self._hands), self._stamp_s
        return already or self._stamp_s - self._alike[1] >= TWO_PEOPLE_S

    def pose(self, hand_id: int, stamp_s: float | None) -> HandPose | None:
        """The filtered pose of a hand at ``stamp_s``, the future extrapolated (None: as of its last frame)."""
        return self._poser.pose(hand_id, stamp_s)

    def expected(self, hand_id: int, stamp_s: float) -> HandPose | None:
        """The fitted pose of a hand led on to ``stamp_s``; None until it has been posed for some frames."""
        return self._poser.expected(hand_id, stamp_s)

    def expected_px(self, camera: Camera, stamp_s: float) -> dict[int, np.ndarray]:
        """Where the expected poses have their keypoints (21, 2) in the image of ``camera``, by id; NaN: nowhere."""
        poses = {hand_id: self.expected(hand_id, stamp_s) for hand_id in self._hands}
        return {hand_id: camera.project(pose.points()) for hand_id, pose in poses.items() if pose is not None}

    def fit(self, hand_id: int) -> HandFit | None:
        """The last fit of a hand, not filtered; None when it has none."""
        return self._poser.raw(hand_id)

    def view_of(self, seen: HandKeypoints, camera: Camera, depth_m: np.ndarray | None = None) -> HandView:
        """What the one ``camera`` sees, in its own frame, doubtful hands ``unshrunk``; ``depth_m`` (H, W): depth image.

        Depth that contradicts the size of the hand is left out, and counted.
        """
        relative = depth_along_z(seen.keypoints_px, seen.depth_rel, camera)
        metric = None if depth_m is None else joint_depths(depth_m, seen.keypoints_px)
        if metric is not None and np.isnan(metric).all():
            metric = None
        if metric is not None and not fits_size(metric, seen, camera, self.size):
            metric = None
            self.depths_refused += 1
        points = unshrunk(seen.keypoints_px, seen.keypoint_scores, seen.box.size_px[0])
        return HandView(camera, points, seen.keypoint_scores, relative, metric)

    def depth_views(
        self, keypoints: Sequence[HandKeypoints], camera: Camera | None, depth_m: np.ndarray | None
    ) -> dict[int, list[HandView]] | None:
        """What ``camera`` and its depth image (H, W) see of each hand, by id; None without a camera or depth."""
        if depth_m is None or camera is None:
            return None
        return {seen.id: [self.view_of(seen, camera, depth_m)] for seen in keypoints}

    def _fit(self, camera: Camera, stamp_s: float, views: Mapping[int, Sequence[HandView]]) -> None:
        """Pose every hand that was seen in this frame."""
        seen = {
            hand_id: (smoothed.side, views.get(hand_id) or [self.view_of(smoothed.last, camera)])
            for hand_id, smoothed in self._hands.items()
            if smoothed.seen_s == stamp_s
        }
        self._poser.fit_all(seen, stamp_s)
        self.size = self._poser.size

    def _in_space(self, smoothed: _Smoothed, stamp_s: float, camera: Camera | None, values, velocity):
        """What a Hand says in 3D, by field name: that of the pose where there is one, else lifted from the filter's
        ``values`` and ``velocity`` (22, 3) at ``stamp_s``, which are not changed."""
        pose = self._poser.pose(smoothed.last.id, stamp_s)
        if pose is not None:
            scale = Scale.MEASURED if self._poser.size.is_measured else Scale.ASSUMED
            points = pose.points()
            of_points, of_angles = self._poser.velocities(smoothed.last.id, stamp_s, pose, points)
            known = {"points_3d": points, "velocities_3d": of_points, "angle_velocities": of_angles}
            return {"scale": scale, "pose": pose, **known}
        least_px = LEAST_PALM * smoothed.filter.position[-1, 0]
        if values[-1, 0] < least_px:  # a palm that shrinks on while it is not seen would be infinitely far away
            values, velocity = values.copy(), velocity.copy()
            values[-1, 0], velocity[-1] = least_px, 0.0
        return dict(zip(("scale", "points_3d", "velocities_3d"), lift(values, velocity, camera, self.size.palm_m)))

    def _hand(self, smoothed: _Smoothed, stamp_s: float, camera: Camera | None) -> Hand:
        last = smoothed.last
        seen = smoothed.seen_s == stamp_s
        in_evidence = seen and self._poser.stamp_s(last.id) in (None, stamp_s)  # a pose may lag behind the image
        future_s = stamp_s + self.config.predict_s
        values, velocity = smoothed.filter.predict(future_s), smoothed.filter.velocity
        keypoints_px = values[:-1, :2].copy()
        in_space = self._in_space(smoothed, future_s, camera, values, velocity)
        return Hand(
            id=last.id,
            side=smoothed.side,
            side_score=smoothed.side_score,
            score=last.presence,
            source=_evidence(last.source) if in_evidence else Source.PREDICTED,
            box=box_around_known(keypoints_px),
            keypoints_px=keypoints_px,
            keypoint_scores=np.array(last.keypoint_scores if seen else last.keypoint_scores * 0.5),
            velocities_px=velocity[:-1, :2].copy(),
            **in_space,
        )


def _evidence(source: Source) -> Source:
    """Of a hand that was seen in this image, wherever it was looked for."""
    return Source.PROPAGATED if source == Source.PREDICTED else source


def _channels(hand: HandKeypoints, palm_px: float) -> np.ndarray:
    """What is filtered together, in px: (22, 3), x, y and depth of each joint, then the palm length."""
    channels = np.zeros((NUM_JOINTS + 1, 3))
    channels[:-1, :2] = hand.keypoints_px
    np.multiply(hand.depth_rel, palm_px, out=channels[:-1, 2])
    channels[-1, 0] = palm_px
    return channels
