"""The life of tracks: where each hand's box is in the next frame, when to detect, who is who.

Detection by tracking (MEgATrack, section 3): DetNet runs only while a wanted hand is missing; a tracked hand's box
comes from optical flow on its last keypoints. Times are the stamps of the images; nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hand_tracking_ros.config import FlowConfig, TrackConfig
from hand_tracking_ros.flow import FlowImage, FlowPropagator, moved_onto
from hand_tracking_ros.fusion import after_flow, after_seeing, doubted
from hand_tracking_ros.geometry import Box, box_around
from hand_tracking_ros.skeleton import NUM_JOINTS, palm_length
from hand_tracking_ros.types import NO_HAND, HandBox, HandKeypoints, Source

LEAST_INSIDE = 0.25  # a box with less of its area in the image has left
SAME_HAND_SHARE = 0.6  # a detection closer to a tracked hand than this share of the box side is that hand
SAME_PLACE_SHARE = 0.25  # two detections of the same size and closer than this share are of the same thing
REVIVE_SHARE = 1.5  # a detection closer than this to where a lost hand was expected is that hand again
OTHER_SIZE = 1.7  # boxes whose sizes differ this much are of different things
SURE = 0.9  # presence of a hand that KeyNet is sure of: its box is right, unless KeyNet is surer of another
AGREE_SHARE = 0.5  # of the palm: flow and pose that differ by more at a joint contradict each other
SIDE_MEMORY_S = 0.15  # views further apart than this are evidence of their own for the side of a hand
SIDE_MOST = 4.0  # log odds: surer than 98 % a track never is, so that it can find out that it was wrong
SAME_SIDE = 0.03  # probability that two hands in view are both left ones, or both right ones
REMEMBERED_S = 0.5  # for this long what KeyNet refused comes after what it has not seen
STAMP_JITTER_S = 0.002  # an interval of three frames means every third frame, though stamps jitter


@dataclass
class _Track:
    id: int
    hand_box: HandBox  # in the frame last processed
    keypoints_px: np.ndarray | None  # (21, 2) in that frame; None until first seen
    seen_s: float
    seen: bool = False  # in the last frame
    followed: np.ndarray = field(default_factory=lambda: np.zeros(NUM_JOINTS, bool))  # joints, by flow in this frame
    variance: np.ndarray = field(default_factory=lambda: np.full(NUM_JOINTS, np.inf))  # of keypoints_px (fusion.py)
    seen_center_px: np.ndarray = field(default_factory=lambda: np.full(2, np.nan))
    velocity_px_s: np.ndarray = field(default_factory=lambda: np.zeros(2))  # of the box centre
    sureness: float = 0.0  # of KeyNet, when last seen
    other_box: HandBox | None = None  # where DetNet says that the hand is, until KeyNet has looked there


@dataclass(frozen=True)
class _Refused:
    """A detection in which KeyNet saw no hand, or not surely one."""

    box: Box
    presence: float
    stamp_s: float

    def same_place(self, box: Box) -> bool:
        return _same_size(box, self.box) and _distance(box, self.box) < SAME_PLACE_SHARE


class HandTracks:
    """All tracks of one image stream. Per frame: ``predict``, if ``wants_detection`` then ``associate``, ``update``.

    Where a hand is ``in_view`` already, others can wait: detect and ``associate`` after ``update``, then ``add``.

    ``least_interval_s``: between detections, where the config says less (budget.py).
    """

    def __init__(self, track: TrackConfig = TrackConfig(), flow: FlowConfig = FlowConfig()):
        self.config = track
        self.least_interval_s = 0.0
        self._flow = FlowPropagator(flow)
        self._next_id = 1  # never goes back, not even on reset: ids are not reused
        self.reset()

    def reconfigure(self, track: TrackConfig, flow: FlowConfig) -> None:
        """Take over new settings; the tracks live on, the oldest ones where there may be fewer."""
        self.config, self._flow = track, FlowPropagator(flow)
        self._tracks = sorted(self._tracks, key=lambda one: one.id)[: track.max_hands]

    def reset(self) -> None:
        """Forget all tracks; ids go on counting."""
        self._tracks: list[_Track] = []
        self._refused: list[_Refused] = []
        self._previous: FlowImage | None = None
        self._stamp_s = -np.inf
        self._detected_s = -np.inf

    def predict(self, mono: np.ndarray, stamp_s: float) -> list[HandBox]:
        """Boxes of the tracked hands in the image (H, W) uint8 taken at ``stamp_s``. Time jumps reset all tracks."""
        if not 0 <= stamp_s - self._stamp_s <= self.config.max_gap_s:
            self.reset()
        current = self._flow.prepare(mono)
        if current.mono is mono:
            current = FlowImage(mono.copy(), current.scale)  # the caller may reuse its buffer
        if self._previous is not None and not self._previous.same_size(current):
            self.reset()
        self._prune(stamp_s, mono.shape)
        self._propagate(current, stamp_s)
        self._previous, self._stamp_s = current, stamp_s
        return self.boxes()

    @property
    def in_view(self) -> bool:
        """Whether a hand was seen in the frame last processed."""
        return any(track.seen for track in self._tracks)

    def wants_detection(self, stamp_s: float) -> bool:
        """Whether DetNet should look at this frame: a hand is missing and the budget allows it."""
        seen = sum(track.seen for track in self._tracks)
        if seen >= self.config.max_hands:
            return False
        just_lost = any(not track.seen and track.seen_s >= self._detected_s for track in self._tracks)
        interval_s = self.config.missing_interval_s if seen and not just_lost else self.config.search_interval_s
        return not 0 <= stamp_s - self._detected_s < max(interval_s, self.least_interval_s) - STAMP_JITTER_S

    def associate(self, detections: Sequence[HandBox], stamp_s: float) -> list[HandBox]:
        """Boxes of this frame after a detection: the predicted ones, lost hands found again, and new hands."""
        self._detected_s = stamp_s
        for detection in self._untried_first(detections, stamp_s):
            same = next(
                (t for t in self._tracks if t.seen and _distance(t.hand_box.box, detection.box) < SAME_HAND_SHARE), None
            )
            if same is not None:
                compared = same.seen_s == stamp_s  # KeyNet has looked into the track's own box of this frame, too
                if (compared or same.hand_box.score < SURE) and not _same_size(detection.box, same.hand_box.box):
                    same.other_box = _again(detection, same)  # it has shrunk onto a part, or grown off the hand?
                continue
            lost = [t for t in self._tracks if not t.seen and t.hand_box.source != Source.DETECTED]
            nearest = min(lost, key=lambda track: _distance(track.hand_box.box, detection.box), default=None)
            if nearest is not None and _distance(nearest.hand_box.box, detection.box) < REVIVE_SHARE:
                nearest.hand_box = _again(detection, nearest)
                nearest.keypoints_px = None
            elif len(self._tracks) < self.config.max_hands:
                new_id = self._new_id()
                self._tracks.append(_Track(new_id, _with_id(detection, new_id), None, -np.inf))
        return self.boxes()

    def _untried_first(self, detections: Sequence[HandBox], stamp_s: float) -> list[HandBox]:
        """What was not tried lately, then what was refused, the longest ago first: all have their turn.

        Where KeyNet was sure to see no hand, it is not asked again within ``retry_interval_s``.
        """
        since_s = stamp_s - self.config.retry_interval_s + STAMP_JITTER_S
        self._refused = [old for old in self._refused if old.stamp_s > min(since_s, stamp_s - REMEMBERED_S)]
        turns = []
        for detection in detections:
            known = [old for old in self._refused if old.same_place(detection.box)]
            last_s = max((old.stamp_s for old in known), default=-np.inf)
            presence = max((old.presence for old in known if old.stamp_s > since_s), default=np.inf)
            if presence >= NO_HAND:
                turns.append((last_s, detection))
        return [detection for _, detection in sorted(turns, key=lambda turn: turn[0])]

    def expect(self, expected_px: Mapping[int, np.ndarray], vote: bool = False) -> list[HandBox]:
        """Boxes of this frame, once it is known where fitted poses should have their keypoints (21, 2), by id.

        Optical flow saw the images and is believed first; a hand that it lost follows the pose (MEgATrack, section 3).
        ``vote``, for networks that are told where to expect keypoints: flow says how the hand has moved, and the pose
        what shape it has, which counts at a joint that flow lost, or where the two contradict each other.
        """
        for track in self._tracks:
            points = expected_px.get(track.id)
            if points is None or not track.seen:
                continue
            if track.hand_box.source == Source.PROPAGATED and vote:
                track.keypoints_px, contradicted = _voted(track.keypoints_px, points, track.followed)
                track.variance = np.where(contradicted, np.inf, track.variance)
            elif track.hand_box.source == Source.PREDICTED and np.isfinite(points).all():
                track.keypoints_px = points
                self._move(track, box_around(points), Source.PREDICTED)
        return self.boxes()

    def adopt(self, expected_px: np.ndarray) -> int | None:
        """Look for a hand whose keypoints (21, 2) somebody else expects here. Its id, or None when there are enough."""
        if len(self._tracks) >= self.config.max_hands:
            return None
        track_id = self._new_id()
        box = HandBox(box_around(expected_px), 1.0, 0.5, track_id, Source.DETECTED, expected_px)
        self._tracks.append(_Track(track_id, box, None, -np.inf))
        return track_id

    def drop(self, track_id: int) -> None:
        """Give up a track: what it follows is not what was meant."""
        self._tracks = [track for track in self._tracks if track.id != track_id]

    def _new_id(self) -> int:
        return self._next_id + sum(not np.isfinite(track.seen_s) for track in self._tracks)

    def boxes(self) -> list[HandBox]:
        """The boxes of this frame as they stand. What is known of the side of one of a person's hands counts for
        both."""
        boxes = [self._with_expectation(track) for track in self._tracks]
        pair = self.config.one_person and len(boxes) == 2
        if pair and all(box.source != Source.DETECTED for box in boxes):  # new ones are seen both ways
            sides = _as_pair(*(box.right_score for box in boxes))
            boxes = [replace(box, right_score=right) for box, right in zip(boxes, sides)]
        return boxes

    def _with_expectation(self, track: _Track) -> HandBox:
        if track.other_box is not None:
            return track.other_box
        if track.keypoints_px is None or track.hand_box.source == Source.DETECTED:
            return track.hand_box
        variance = track.variance if self._flow.config.average else None
        return replace(track.hand_box, expected_px=track.keypoints_px, expected_variance=variance)

    def update(self, keypoints: Sequence[HandKeypoints], stamp_s: float) -> None:
        """Take the keypoints of this frame. What KeyNet does not confirm coasts, or ends when it was new."""
        by_id = {hand.id: hand for hand in keypoints}
        for track in self._tracks:
            self._judge(track, by_id.get(track.id), stamp_s)
        self._end_unseen()

    def add(self, keypoints: Sequence[HandKeypoints], stamp_s: float) -> None:
        """Take those of hands that were detected after ``update``. All other tracks stay as they are."""
        by_id = {hand.id: hand for hand in keypoints}
        for track in self._tracks:
            if track.id in by_id:
                self._judge(track, by_id[track.id], stamp_s)
        self._end_unseen()

    def _judge(self, track: _Track, hand: HandKeypoints | None, stamp_s: float) -> None:
        """See the hand of a track, or not. What was seen already in this frame stays, unless ``hand`` is surer."""
        other_box, track.other_box = track.other_box, None
        if other_box is not None and track.seen_s == stamp_s and (hand is None or _sureness(hand) <= track.sureness):
            return
        is_new = not np.isfinite(track.seen_s)
        least = self.config.start_presence if is_new else self.config.keep_presence
        track.seen = hand is not None and hand.presence >= least
        if track.seen:
            self._see(track, hand, stamp_s)
            self._next_id = max(self._next_id, track.id + 1)  # only hands that are confirmed use up ids
        elif hand is not None and is_new:
            self._refused.append(_Refused(track.hand_box.box, hand.presence, stamp_s))

    def _end_unseen(self) -> None:
        self._tracks = [track for track in self._tracks if np.isfinite(track.seen_s)]

    def _see(self, track: _Track, hand: HandKeypoints, stamp_s: float) -> None:
        box = box_around(hand.keypoints_px)
        elapsed_s = stamp_s - track.seen_s
        center_px = np.array(box.center_px)
        if 0 < elapsed_s < np.inf:
            track.velocity_px_s = 0.5 * track.velocity_px_s + 0.5 * (center_px - track.seen_center_px) / elapsed_s
        right = _believed(track.hand_box.right_score, hand.right_score, elapsed_s)
        known = np.inf
        if hand.source != Source.DETECTED and track.keypoints_px is not None:
            known = doubted(track.variance, track.keypoints_px, hand.keypoints_px)
        track.variance = after_seeing(known, hand.keypoint_scores)
        track.keypoints_px, track.seen_center_px, track.seen_s = hand.keypoints_px, center_px, stamp_s
        track.sureness = _sureness(hand)
        track.hand_box = HandBox(box, hand.presence, right, track.id, hand.source)

    def _prune(self, stamp_s: float, shape: tuple[int, ...]) -> None:
        height, width = shape[:2]
        self._tracks = [
            track
            for track in self._tracks
            if (track.seen or stamp_s - track.seen_s <= self.config.coast_s + STAMP_JITTER_S)
            and track.hand_box.box.area_inside(width, height) >= LEAST_INSIDE
        ]

    def _propagate(self, current: FlowImage, stamp_s: float) -> None:
        followed = [track for track in self._tracks if track.keypoints_px is not None]
        if followed and self._previous is not None:
            hands = [(track.keypoints_px, track.hand_box.box) for track in followed]
            motions = self._flow.propagate_many(self._previous, current, hands)
        else:
            motions = []
        elapsed_s = stamp_s - self._stamp_s
        for track in self._tracks:
            track.other_box = None
        for track, motion in zip(followed, motions):
            track.followed = motion.followed
            known = motion.followed | current.outside(motion.keypoints_px)  # where flow cannot see
            track.variance = after_flow(track.variance, track.keypoints_px, motion.keypoints_px, known)
            if motion.enough:
                track.keypoints_px = motion.keypoints_px
                self._move(track, motion.box, Source.PROPAGATED)
            else:
                shift = track.velocity_px_s * elapsed_s
                track.keypoints_px = track.keypoints_px + shift
                self._move(track, _shifted(track.hand_box.box, shift), Source.PREDICTED)
        for track in self._tracks:
            if track.keypoints_px is None:
                self._move(track, _shifted(track.hand_box.box, track.velocity_px_s * elapsed_s), Source.PREDICTED)

    @staticmethod
    def _move(track: _Track, box: Box, source: Source) -> None:
        old = track.hand_box
        track.hand_box = HandBox(box, old.score, old.right_score, old.id, source)


def _sureness(hand: HandKeypoints) -> float:
    """How sure KeyNet is of a hand, 0..1: that it is one, and where its joints are."""
    return hand.presence * float(hand.keypoint_scores.mean())


def _believed(before: float, seen: float, elapsed_s: float) -> float:
    """Probability 0..1 that a hand is a right one: log odds add up, frames that follow closely count as much less.

    What is seen of a new hand is all that is known. A view that says nothing (0.5) leaves the belief as it is.
    """
    if not np.isfinite(elapsed_s):
        return seen
    share = min(1.0, elapsed_s / SIDE_MEMORY_S)
    log_odds = np.clip(_log_odds(before) + share * _log_odds(seen), -SIDE_MOST, SIDE_MOST)
    return float(1 / (1 + np.exp(-log_odds)))


def _as_pair(first: float, second: float) -> tuple[float, float]:
    """Probabilities 0..1 that two hands, seldom of the same side, are right ones, from what each alone looks like."""
    both, neither = SAME_SIDE * first * second, SAME_SIDE * (1 - first) * (1 - second)
    only_first, only_second = (1 - SAME_SIDE) * first * (1 - second), (1 - SAME_SIDE) * (1 - first) * second
    whole = both + neither + only_first + only_second
    return (both + only_first) / whole, (both + only_second) / whole


def _log_odds(probability: float) -> float:
    probability = min(max(probability, 0.002), 0.998)
    return float(np.log(probability / (1 - probability)))


def _voted(flow_px: np.ndarray, pose_px: np.ndarray, followed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (21, 2): flow's where it ``followed`` them and the pose, moved onto flow, agrees; else the pose's.

    And where the pose's were taken, (21,) bool.
    """
    agree = followed
    for _ in range(2):  # a joint that contradicts the others takes no part in the second move
        shaped = moved_onto(pose_px, flow_px, agree)
        gaps_px = np.linalg.norm(shaped - flow_px, axis=1)
        agree = followed & (gaps_px <= AGREE_SHARE * palm_length(flow_px))
    keep = agree | ~np.isfinite(gaps_px)  # of a joint that the lens has no place for the pose says nothing
    return np.where(keep[:, None], flow_px, shaped), ~keep


def _again(detection: HandBox, track: _Track) -> HandBox:
    """The box of a known hand as DetNet sees it; what is believed of its side stays."""
    return replace(_with_id(detection, track.id), right_score=track.hand_box.right_score)


def _with_id(detection: HandBox, track_id: int) -> HandBox:
    return HandBox(detection.box, detection.score, detection.right_score, track_id, Source.DETECTED)


def _shifted(box: Box, shift: np.ndarray) -> Box:
    return Box((box.center_px[0] + float(shift[0]), box.center_px[1] + float(shift[1])), box.size_px, box.angle_rad)


def _distance(a: Box, b: Box) -> float:
    """Distance of two box centres as a share of the larger box's side."""
    gap = np.hypot(a.center_px[0] - b.center_px[0], a.center_px[1] - b.center_px[1])
    return float(gap / max(*a.size_px, *b.size_px))


def _same_size(a: Box, b: Box) -> bool:
    return 1 / OTHER_SIZE < max(a.size_px) / max(b.size_px) < OTHER_SIZE
