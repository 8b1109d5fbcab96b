"""RigTracker: hands seen by several calibrated cameras, as one hand each, in the rig's frame.

Every camera has its own tracks (tracks.py); a hand that is posed is looked for in all cameras by projection, so DetNet
runs on one camera at a time, and only while a wanted hand is missing (MEgATrack, Han et al. 2020, section 3), or at
most twice a second in a camera that does not see a hand of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

import numpy as np

from hand_tracking_ros.camera_lag import RATE_OVER_S, CameraLags
from hand_tracking_ros.config import Config, TrackerConfig
from hand_tracking_ros.detection import HandDetector
from hand_tracking_ros.fitting import HandView, first_pose
from hand_tracking_ros.geometry import box_around_known
from hand_tracking_ros.images import as_mono
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.kinematics import HandPose
from hand_tracking_ros.machine import usable_cores
from hand_tracking_ros.rig import Rig, RigCamera, triangulate
from hand_tracking_ros.skeleton import NUM_JOINTS, Side, palm_length
from hand_tracking_ros.smoothing import HandFilter
from hand_tracking_ros.tracks import HandTracks
from hand_tracking_ros.types import Frame, Hand, HandBox, HandKeypoints, Source

LEAST_INSIDE = 0.5  # share of a projected hand's keypoints in the image for which it is worth looking
SAME_SHARE = 0.6  # of the palm: keypoints this close to a projected hand are that hand
MEET_SHARE = 0.25  # of the palm: rays of two cameras that pass this close, in the mean over the joints, meet in a hand
OTHER_SIZE = 1.5  # a palm that is larger or smaller by this factor than what is known of it is none
FAR_SHARE = 0.7  # of the palm: a view further from the fit than this, for as long as
FAR_FRAMES = 4  # this, shows something else
OVERLOOKED_S = 0.5  # a camera that misses a hand of others for this long looks for it with DetNet


@dataclass
class _Seen:
    """A hand of the rig: the ids of its tracks, by camera, and for how long each has disagreed with the others."""

    tracks: dict[int, int] = field(default_factory=dict)
    far: dict[int, int] = field(default_factory=dict)


class RigTracker:
    """Tracks hands through the synchronised or free-running images of a rig. ``size`` and ids as in HandTracker.

    ``disagreement``: per camera the mean distance between its keypoints and the hands that all cameras agreed on, in
    palm lengths, over about the last second; NaN while only one camera sees hands. Keypoints differ by 0.02 to 0.1;
    lasting values above 0.4 mean a wrong calibration, or cameras that are swapped.

    ``lags_s``: per camera by how much its images are older than their stamps say, beside those of the first camera; NaN
    while no moving hand that both see tells it (camera_lag.py).

    ``apart``: per camera whether, in the last step, it saw only hands that no other camera sees, though a hand that
    one of those sees should be in its image too. Lasting, it means the same.

    The cameras of a step are looked at side by side, by as many threads as there are cameras and cores to run on.
    """

    def __init__(self, rig: Rig | None, config: TrackerConfig = TrackerConfig()):
        """``rig`` None: ``place`` the cameras before the first step."""
        self.rig: Rig | None = None
        # In the optical frame of the first camera, where hands are fitted and filtered:
        self._optical: Rig | None = None
        self.config = config
        self.detector = HandDetector(config.detector, config.inference)
        self.estimator = KeypointEstimator(config.keypoints, config.inference, config.track.max_hands)
        self.filter = HandFilter(config.filter, config.track, replace(config.pose, enabled=True))
        self._tracks: list[HandTracks] = []
        self._pool: ThreadPoolExecutor | None = None
        self._next_id = 1
        self.reset()
        if rig is not None:
            self.place(rig)

    def place(self, rig: Rig) -> None:
        """Take over where the cameras are. Hands live on, in the rig's frame, unless it is other cameras or lenses."""
        old, self.rig, self._optical = self.rig, rig, rig.seen_from_first()
        if old is None or [(c.name, c.camera) for c in old.cameras] != [(c.name, c.camera) for c in rig.cameras]:
            self._tracks = [HandTracks(self.config.track, self.config.flow) for _ in rig.cameras]
            threads = min(len(rig.cameras), usable_cores())
            self._pool = ThreadPoolExecutor(threads, "camera") if threads > 1 else None
            self.reset()

    def reconfigure(self, config: TrackerConfig) -> None:
        """Take over new settings between two frames. The networks stay as loaded; where tracking itself is set anew,
        all hands start afresh."""
        known, self.config = _of_tracking(self.config), config
        self.detector.config, self.estimator.config = config.detector, config.keypoints
        for tracks in self._tracks:
            tracks.reconfigure(config.track, config.flow)
        self.filter.reconfigure(config.filter, config.track, replace(config.pose, enabled=True))
        if _of_tracking(config) != known:
            self.reset()

    def give_up(self, least_interval_s: float, detector: HandDetector, estimator: KeypointEstimator) -> None:
        """As HandTracker.give_up."""
        for tracks in self._tracks:
            tracks.least_interval_s = least_interval_s
        self.detector, self.estimator = detector, estimator
        self.detector.config, self.estimator.config = self.config.detector, self.config.keypoints

    def close(self) -> None:
        """Free the networks."""
        for stage in (self.detector, self.estimator):
            stage.backend.close()

    def reset(self) -> None:
        """Forget all hands. Ids go on counting, so an id always means one hand."""
        for tracks in self._tracks:
            tracks.reset()
        self.filter.reset()
        self._hands: dict[int, _Seen] = {}
        self._turn = 0  # the camera in which DetNet looks next
        self._missed_s = np.full(len(self._tracks), np.nan)  # since when each camera has missed hands, NaN: it does not
        self._strays: dict[tuple[int, int], float] = {}  # since when tracks, by camera and id, have been of no hand
        self.disagreement = np.full(len(self._tracks), np.nan)
        self.apart = np.zeros(len(self._tracks), bool)
        self.lags_s = np.full(len(self._tracks), np.nan)
        self._lags = CameraLags(len(self._tracks))

    def step(self, frames: Sequence[Frame | None]) -> list[Hand]:
        """Hands at the newest stamp, by id; image values are those of the rig's first camera, 3D is the rig's frame.

        ``frames``: one per camera, None from one that has no new image. Raises ValueError when their number is wrong
        or all are None, or the cameras have no places.
        """
        if self.rig is None:
            raise ValueError("step needs to know where the cameras are: place them first")
        if len(frames) != len(self.rig.cameras) or all(frame is None for frame in frames):
            raise ValueError(
                f"step needs an image from at least one of {len(self.rig.cameras)} cameras, in their order"
            )
        stamp_s = max(frame.stamp_s for frame in frames if frame is not None)
        while frames[self._turn] is None:  # a camera without an image passes its turn on
            self._turn = (self._turn + 1) % len(frames)
        found = self._look_all(frames)
        self._turn = (self._turn + 1) % len(frames)
        self._bind(found, frames, stamp_s)
        keypoints, views, others = [], {}, {}
        for hand_id in self._hands:
            seen = self._seen(hand_id, found)
            if not seen:
                keypoints += self._unseen(hand_id, stamp_s)
                continue
            own = {index: self._view(index, k, hand_id, frames[index], stamp_s) for index, k in seen.items()}
            views[hand_id] = {index: own[index] for index in self._agreeing(hand_id, own, stamp_s)}
            others[hand_id] = {index: view for index, view in own.items() if index not in views[hand_id]}
            seen = {index: seen[index] for index in views[hand_id]}
            keypoints.append(self._in_first_camera(hand_id, seen, list(views[hand_id].values()), stamp_s))
        fitted = {hand_id: list(own.values()) for hand_id, own in views.items()}
        hands = self.filter.apply(keypoints, stamp_s, self._optical.cameras[0].camera, fitted)
        self._check(views, others)
        self._compare_times(views, stamp_s)
        self._find_apart(found, views, frames, stamp_s)
        alive = {hand.id for hand in hands}
        self._hands = {i: hand for i, hand in self._hands.items() if i in alive}
        return [_moved(hand, self.rig.cameras[0]) for hand in hands]

    def _look_all(self, frames: Sequence[Frame | None]) -> list[list[HandKeypoints]]:
        """What each camera sees in its frame. Raises what one of them raises, once all have finished."""
        if self._pool is None or sum(frame is not None for frame in frames) == 1:
            return [self._look(index, frame) for index, frame in enumerate(frames)]
        looks = [self._pool.submit(self._look, index, frame) for index, frame in enumerate(frames)]
        wait(looks)
        return [look.result() for look in looks]

    def _look(self, index: int, frame: Frame | None) -> list[HandKeypoints]:
        """What one camera sees in its frame. Of what the cameras share it changes only what is this camera's."""
        if frame is None:
            return []
        tracks, mono = self._tracks[index], as_mono(frame.image)
        boxes = tracks.predict(mono, frame.stamp_s)
        if self.estimator.takes_prior:
            boxes = tracks.expect(self._expected_px(index, frame.stamp_s), vote=True)
        missed = self._missed(index, {box.id for box in boxes})
        overlooks = self._overlooks(index, missed, frame.stamp_s)
        if not overlooks:
            boxes = self._adopt(index, missed, frame.stamp_s, mono.shape)
        missing = len(self._hands) < self.config.track.max_hands
        if index == self._turn and (missing or overlooks) and tracks.wants_detection(frame.stamp_s):
            boxes = tracks.associate(self.detector.detect(mono), frame.stamp_s)
        camera = self._optical.cameras[index].camera
        least = self.config.track.least_presence
        keypoints = self.estimator.estimate(mono, boxes, camera, least) if boxes else []
        tracks.update(keypoints, frame.stamp_s)
        return keypoints

    def _missed(self, index: int, alive: set[int]) -> list[int]:
        """Hands of which a camera has no track ``alive``."""
        missed = [hand_id for hand_id, hand in self._hands.items() if hand.tracks.get(index) not in alive]
        for hand_id in missed:
            self._hands[hand_id].tracks.pop(index, None)
        return missed

    def _overlooks(self, index: int, missed: Sequence[int], stamp_s: float) -> bool:
        """Whether hands have been ``missed`` for some time: the camera looks for them with DetNet, once, when it is its
        turn, instead of where they should be. The others may be wrong about the distance, and a rig about its cameras.
        """
        if not missed or not stamp_s >= self._missed_s[index]:  # NaN: from now on
            self._missed_s[index] = stamp_s if missed else np.nan
        if index != self._turn or not stamp_s - self._missed_s[index] >= OVERLOOKED_S:
            return False
        if not self._tracks[index].wants_detection(stamp_s):  # as soon as it may
            return False
        self._missed_s[index] = stamp_s
        return True

    def _adopt(self, index: int, missed: Sequence[int], stamp_s: float, shape) -> list[HandBox]:
        """Boxes of a camera with those where it should see the hands that it has ``missed``."""
        tracks = self._tracks[index]
        for hand_id in missed:
            points = self._projected_inside(index, hand_id, stamp_s, shape)
            adopted = None if points is None else tracks.adopt(points)
            if adopted is not None:
                self._hands[hand_id].tracks[index] = adopted
        return tracks.boxes()

    def _expected_px(self, index: int, stamp_s: float) -> dict[int, np.ndarray]:
        """Where the expected poses have their keypoints (21, 2) in a camera's image, by its tracks; NaN: nowhere."""
        camera, found = self._optical.cameras[index], {}
        for hand_id, hand in self._hands.items():
            pose = self.filter.expected(hand_id, stamp_s) if index in hand.tracks else None
            if pose is not None:
                found[hand.tracks[index]] = camera.project(pose.points())
        return found

    def _projected_inside(self, index: int, hand_id: int, stamp_s: float, shape) -> np.ndarray | None:
        """Keypoints (21, 2) of a posed hand in a camera's image, or None when it is hardly in it."""
        points = self._project(index, self.filter.pose(hand_id, stamp_s))
        if points is None:
            return None
        inside = (points >= 0).all(axis=1) & (points < (shape[1], shape[0])).all(axis=1)
        return points if inside.mean() >= LEAST_INSIDE else None

    def _project(self, index: int, pose: HandPose | None) -> np.ndarray | None:
        """Keypoints (21, 2) of a pose in a camera's image; None when not all of them have a place there."""
        if pose is None:
            return None
        points = self._optical.cameras[index].project(pose.points())
        return points if np.isfinite(points).all() else None

    def _bind(self, found: Sequence[Sequence[HandKeypoints]], frames: Sequence[Frame | None], stamp_s: float) -> None:
        """Give every new track to the hand that it shows, or make it a new hand. Two that prove one become one."""
        for index, hands in enumerate(found):
            for new in hands:
                if new.presence < self.config.track.start_presence:
                    continue
                owner = next((i for i, hand in self._hands.items() if hand.tracks.get(index) == new.id), None)
                if owner is None:
                    self._give(index, new, found, stamp_s)
                elif len(self._seen(owner, found)) == 1:
                    other = self._meeting(index, new, found, owner)
                    if other is not None:
                        kept, lost = sorted((owner, other))
                        tracks = {camera: k.id for i in (kept, lost) for camera, k in self._seen(i, found).items()}
                        self._hands[kept].tracks = tracks
                        del self._hands[lost]
        self._drop_strays(found, frames, stamp_s)

    def _drop_strays(
        self, found: Sequence[Sequence[HandKeypoints]], frames: Sequence[Frame | None], stamp_s: float
    ) -> None:
        """Give up tracks that have not been of any hand for some time: they take the place of one."""
        owned = {track for hand in self._hands.values() for track in hand.tracks.items()}
        loose = {(index, seen.id) for index, hands in enumerate(found) for seen in hands} - owned
        unseen = {track: since_s for track, since_s in self._strays.items() if frames[track[0]] is None}
        self._strays = unseen | {track: min(self._strays.get(track, stamp_s), stamp_s) for track in loose}
        for (index, track), since_s in self._strays.items():
            if stamp_s - since_s >= OVERLOOKED_S:
                self._tracks[index].drop(track)

    def _give(self, index: int, new: HandKeypoints, found: Sequence[Sequence[HandKeypoints]], stamp_s: float) -> None:
        same = self._same_hand(index, new, stamp_s)
        if same is None:
            same = self._meeting(index, new, found)
        if same is not None:
            self._hands[same].tracks[index] = new.id
        elif len(self._hands) < self.config.track.max_hands:
            self._hands[self._next_id] = _Seen({index: new.id})
            self._next_id += 1

    def _same_hand(self, index: int, new: HandKeypoints, stamp_s: float) -> int | None:
        gaps = {}
        for hand_id, hand in self._hands.items():
            pose = self.filter.pose(hand_id, stamp_s) if index not in hand.tracks else None
            if pose is not None:
                gaps[hand_id] = self._gap(index, new.keypoints_px, pose.points())
        nearest = min(gaps, key=gaps.get, default=None)
        return nearest if nearest is not None and gaps[nearest] < SAME_SHARE else None

    def _meeting(
        self, index: int, new: HandKeypoints, found: Sequence[Sequence[HandKeypoints]], but: int | None = None
    ) -> int | None:
        """The hand, other than ``but``, that another camera sees where the rays of what this one sees lead."""
        for hand_id in self._hands:
            seen = self._seen(hand_id, found)
            if hand_id == but or index in seen:
                continue
            if any(self._meet({camera: keypoints, index: new}) for camera, keypoints in seen.items()):
                return hand_id
        return None

    def _meet(self, seen: Mapping[int, HandKeypoints | HandView]) -> bool:
        """Whether the rays of what two cameras see meet in a hand of the size that is known.

        One camera alone may be wrong about the distance by so much that its hand is projected elsewhere.
        """
        pixels = np.stack([keypoints.keypoints_px for keypoints in seen.values()])
        points, errors_px = triangulate([self._optical.cameras[index] for index in seen], pixels)
        shares = errors_px.mean(axis=1) / [palm_length(own) for own in pixels]
        size = np.linalg.norm(points[9] - points[0]) / self.filter.size.palm_m
        return bool((shares < MEET_SHARE).all() and 1 / OTHER_SIZE < size < OTHER_SIZE)

    def _seen(self, hand_id: int, found: Sequence[Sequence[HandKeypoints]]) -> dict[int, HandKeypoints]:
        """What the cameras see of a hand, by camera."""
        tracks = self._hands[hand_id].tracks.items()
        seen = {index: next((k for k in found[index] if k.id == track), None) for index, track in tracks}
        return {index: k for index, k in seen.items() if k is not None and self._counts(k, hand_id)}

    def _agreeing(self, hand_id: int, views: Mapping[int, HandView], stamp_s: float) -> list[int]:
        """The cameras that see one and the same hand: where it is expected, or where the rays of the one meet that sees
        it nearest to there."""
        pose = self.filter.pose(hand_id, stamp_s)
        if len(views) < 2 or pose is None:
            return list(views)
        points_m = pose.points()
        gaps = {index: self._gap(index, view.keypoints_px, points_m) for index, view in views.items()}
        nearest = min(gaps, key=gaps.get)
        return [
            index for index, gap in gaps.items()
            if index == nearest or gap <= FAR_SHARE or self._meet({nearest: views[nearest], index: views[index]})
        ]  # fmt: skip

    def _gap(self, index: int, points_px: np.ndarray, points_m: np.ndarray) -> float:
        """How far keypoints (21, 2) in a camera's image are from a hand's (21, 3), in palm lengths; inf: nowhere."""
        apart = np.linalg.norm(self._optical.cameras[index].project(points_m) - points_px, axis=1)
        return float(np.nanmean(apart) / palm_length(points_px)) if np.isfinite(apart).any() else np.inf

    def _counts(self, keypoints: HandKeypoints, hand_id: int) -> bool:
        known = self.filter.pose(hand_id, None) is not None
        return keypoints.presence >= (self.config.track.keep_presence if known else self.config.track.start_presence)

    def _view(self, index: int, seen: HandKeypoints, hand_id: int, frame: Frame, stamp_s: float) -> HandView:
        """What a camera sees of a hand, led on to the common stamp."""
        place: RigCamera = self._optical.cameras[index]
        view = self.filter.view_of(seen, place.camera, frame.depth_m)
        if frame.stamp_s != stamp_s:
            view = self._led_on(
                index, view, self.filter.pose(hand_id, frame.stamp_s), self.filter.pose(hand_id, stamp_s)
            )
        return replace(view, rotation=place.rotation, translation_m=place.translation_m)

    def _led_on(self, index: int, view: HandView, then: HandPose | None, now: HandPose | None) -> HandView:
        """The view after the motion that the pose is known to have: in the image, and away from the camera."""
        then_px, now_px = self._project(index, then), self._project(index, now)
        if then_px is None or now_px is None:
            return view
        depth_m = view.depth_m
        if depth_m is not None:
            place = self._optical.cameras[index]
            depth_m = depth_m + (place.from_rig(now.points()) - place.from_rig(then.points()))[:, 2]
        return replace(view, keypoints_px=view.keypoints_px + (now_px - then_px), depth_m=depth_m)

    def _in_first_camera(self, hand_id, seen: dict[int, HandKeypoints], views, stamp_s: float) -> HandKeypoints:
        """What the filter takes: the hand as the rig's first camera has it, or would have it."""
        best = max(seen.values(), key=lambda hand: hand.presence)
        odds = [
            np.log(np.clip(k.right_score, 0.002, 0.998) / np.clip(1 - k.right_score, 0.002, 0.998))
            for k in seen.values()
        ]
        right = float(1 / (1 + np.exp(-np.mean(odds))))
        scores = np.max([k.keypoint_scores for k in seen.values()], axis=0)
        if 0 in seen:
            return replace(seen[0], id=hand_id, right_score=right, presence=best.presence, keypoint_scores=scores)
        pose = self.filter.pose(hand_id, stamp_s) or self._first_pose(views, right)
        points, depth = np.full((NUM_JOINTS, 2), np.nan), np.full(NUM_JOINTS, np.nan)
        if pose is not None:
            place = self._optical.cameras[0]
            points, z = place.project(pose.points()), place.from_rig(pose.points())[:, 2]
            depth = (z - z[9]) / pose.palm_m
        return replace(
            best, id=hand_id, right_score=right, keypoints_px=points, keypoint_scores=scores, depth_rel=depth,
            box=box_around_known(points),
        )  # fmt: skip

    def _first_pose(self, views: Sequence[HandView], right: float) -> HandPose | None:
        """The pose of a new hand; None where the lenses see too little of it."""
        try:
            return first_pose(views, Side.RIGHT if right > 0.5 else Side.LEFT, self.filter.size.palm_m).pose
        except ValueError:
            return None

    def _unseen(self, hand_id: int, stamp_s: float) -> list[HandKeypoints]:
        """A hand that no camera sees in this frame coasts, as long as the filter lets it."""
        pose = self.filter.pose(hand_id, stamp_s)
        if pose is None:
            return []
        points, nothing = self._optical.cameras[0].project(pose.points()), np.zeros(NUM_JOINTS)
        return [HandKeypoints(hand_id, box_around_known(points), Source.PREDICTED, points, nothing, nothing, 0.0, 0.5)]

    def _check(self, views: Mapping[int, Mapping[int, HandView]], others: Mapping[int, Mapping[int, HandView]]) -> None:
        """Compare each camera with the hands that were fitted to ``views``, by hand and camera; drop tracks of these
        and of ``others`` that show something else."""
        gaps: dict[int, list[float]] = {}
        for hand_id, own in views.items():
            fit, hand, compared = self.filter.fit(hand_id), self._hands[hand_id], {**own, **others[hand_id]}
            if fit is None or len(compared) < 2 or len(fit.errors_px) != len(own):  # a fit of before
                continue
            points_m = fit.pose.points()
            for index, view in compared.items():
                share = self._gap(index, view.keypoints_px, points_m)
                if np.isfinite(share):
                    gaps.setdefault(index, []).append(share)
                hand.far[index] = hand.far.get(index, 0) + 1 if share > FAR_SHARE else 0
            for index in [i for i, count in hand.far.items() if count >= FAR_FRAMES]:
                self._tracks[index].drop(hand.tracks.pop(index, -1))
                hand.far[index] = 0
        for index, shares in gaps.items():
            old = self.disagreement[index]
            new = float(np.mean(shares))
            self.disagreement[index] = new if np.isnan(old) else old + 0.05 * (new - old)

    def _compare_times(self, views: Mapping[int, Mapping[int, HandView]], stamp_s: float) -> None:
        """Learn from the hands that move how old the images of the cameras are, beside those of the first."""
        if self._lags.are_due(stamp_s):
            for hand_id, seen in views.items():
                now, then = (self.filter.pose(hand_id, s) for s in (stamp_s, stamp_s - RATE_OVER_S))
                if 0 in seen and len(seen) > 1 and now is not None and then is not None:
                    pixels = {index: view.keypoints_px for index, view in seen.items()}
                    self._lags.take(stamp_s, self._optical.cameras, pixels, now.points(), then.points())
        self.lags_s = self._lags.seconds(stamp_s)

    def _find_apart(self, found, views: Mapping[int, Mapping[int, HandView]], frames, stamp_s: float) -> None:
        """Find the cameras that do not meet the others."""
        shared = {
            (i, self._hands[hand_id].tracks.get(i)) for hand_id, own in views.items() if len(own) > 1 for i in own
        }
        alone = {hand_id: next(iter(own)) for hand_id, own in views.items() if len(own) == 1}
        for index, frame in enumerate(frames):
            tracks = [(index, k.id) for k in found[index] if k.presence >= self.config.track.start_presence]
            self.apart[index] = (
                bool(tracks)
                and not shared.intersection(tracks)
                and any(
                    camera != index and self._projected_inside(index, hand_id, stamp_s, frame.image.shape) is not None
                    for hand_id, camera in alone.items()
                )
            )


def _moved(hand: Hand, first: RigCamera) -> Hand:
    """A hand in the optical frame of the ``first`` camera, in the rig's frame."""
    pose = hand.pose and replace(
        hand.pose, rotation=first.rotation.T @ hand.pose.rotation, position_m=first.to_rig(hand.pose.position_m)
    )
    velocities = hand.velocities_3d @ first.rotation
    return replace(hand, points_3d=first.to_rig(hand.points_3d), velocities_3d=velocities, pose=pose)


def _of_tracking(config: TrackerConfig) -> tuple[Config, ...]:
    """What hands are tracked by."""
    return config.keypoints, config.flow, config.track, config.filter, config.pose
