"""Images of several cameras, brought together by their stamps into what a tracker takes in one step."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Generic, TypeVar

OLDEST_S = 0.1  # an image that is older than the newest of its group by more than this says too little about now
# Of the time between a stream's images: with an older partner than this, a nearer one is expected. More than half, so
# that streams half-way between each other keep the partners that they have; less than 1, so that none is left for long
# with the image before the right one.
NEAR_SHARE = 0.6
GAPS = 9  # of which the usual one is taken: a lost or a late image changes nothing

Item = TypeVar("Item")


class Rhythm:
    """The usual time between the stamps of a stream, in seconds."""

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._gaps_s: deque[float] = deque(maxlen=GAPS)

    def add(self, stamp_s: float) -> None:
        """The next stamp; one that goes back starts afresh."""
        if self._last_s is not None and stamp_s < self._last_s:
            self._gaps_s.clear()
        elif self._last_s is not None and stamp_s > self._last_s:
            self._gaps_s.append(stamp_s - self._last_s)
        self._last_s = stamp_s

    @property
    def near_s(self) -> float:
        """How much older a partner may be than what it is to go with, when no nearer one is expected to come; 0 while
        nothing is known."""
        return NEAR_SHARE * median(self._gaps_s) if self._gaps_s else 0.0


@dataclass
class _Stream(Generic[Item]):
    """One camera's images. Times with ``_at_s`` are the caller's clock, others are stamps."""

    last_at_s: float
    last_s: float = -math.inf
    waiting: tuple[float, Item] | None = None  # stamp and image, not processed so far
    rhythm: Rhythm = field(default_factory=Rhythm)
    lag_s: float = 0.0
    arrived: int = 0
    dropped: int = 0
    dropouts: int = 0


class FrameGroups(Generic[Item]):
    """The newest image of each camera, given out together once all have one, or after a short wait.

    Images whose stamps differ by at most ``sync_s`` belong together, unless the older one's camera is about to send a
    nearer one (``Rhythm``): synchronised cameras make complete groups, after a late image as well, and free-running
    ones fall into a rhythm in which near images meet. The first image of a group waits ``wait_s`` for the others,
    or until the next image would push it out, and not at all for a camera that has been silent for ``silent_s``.
    ``now_s`` is any steady clock.

    Stamps of successive groups increase; a camera whose stamps go back starts everything afresh (a bag that loops), and
    so does one that goes on where a camera whose stamps were ahead has fallen silent.
    """

    def __init__(self, count: int, now_s: float, sync_s: float = 0.017, wait_s: float = 0.02, silent_s: float = 0.5):
        self.sync_s, self.wait_s, self.silent_s = sync_s, wait_s, silent_s
        self.streams: list[_Stream[Item]] = [_Stream(now_s) for _ in range(count)]
        self._given_s, self._given_by = -math.inf, 0

    def add(self, camera: int, stamp_s: float, item: Item, now_s: float) -> None:
        """An image has arrived. One that was not given out before is dropped for it, and counted."""
        stream = self.streams[camera]
        if self.is_silent(camera, now_s) and stream.arrived:
            stream.dropouts += 1
        stream.last_at_s = now_s
        stream.arrived += 1
        if stamp_s < stream.last_s or self._is_left_behind(stamp_s, now_s):
            self._start_afresh()
        if stamp_s == stream.last_s:
            stream.dropped += 1
            return
        others = [s.last_s for i, s in enumerate(self.streams) if i != camera and not self.is_silent(i, now_s)]
        stream.lag_s = max(max(others, default=stamp_s) - stamp_s, 0.0)
        stream.dropped += stream.waiting is not None
        stream.last_s, stream.waiting = stamp_s, (stamp_s, item)
        stream.rhythm.add(stamp_s)

    def _is_left_behind(self, stamp_s: float, now_s: float) -> bool:
        """Whether an image would wait for ever: the camera whose stamps were ahead of all others is gone."""
        return stamp_s < self._given_s - OLDEST_S and self.is_silent(self._given_by, now_s)

    def pushes_out(self, camera: int, stamp_s: float, now_s: float) -> bool:
        """Whether an image that is about to be added would take the place of one that is news, and not complete a
        group with the others: then ``take`` comes first."""
        stream = self.streams[camera]
        if stream.waiting is None or not self._given_s < stream.waiting[0] < stamp_s:
            return False
        return not self._fit([stamp_s if s is stream else _stamp_s(s) for s in self.streams], now_s)

    @property
    def has_news(self) -> bool:
        """Whether an image waits that is newer than all that were given out. Older ones wait for company."""
        return any(_stamp_s(stream) > self._given_s for stream in self.streams)

    def is_complete(self, now_s: float) -> bool:
        """Whether there is nothing to wait for."""
        return self.has_news and self._fit([_stamp_s(stream) for stream in self.streams], now_s)

    def take(self) -> list[Item | None]:
        """What waits, per camera; None from a camera that has nothing new. Call it when ``has_news``."""
        self._given_s, self._given_by = max((_stamp_s(stream), i) for i, stream in enumerate(self.streams))
        group: list[Item | None] = []
        for stream in self.streams:
            waiting, stream.waiting = stream.waiting, None
            recent = waiting is not None and waiting[0] >= self._given_s - OLDEST_S
            stream.dropped += waiting is not None and not recent
            group.append(waiting[1] if recent else None)
        return group

    def is_silent(self, camera: int, now_s: float) -> bool:
        """Whether a camera has sent nothing for so long that nobody waits for it."""
        return now_s - self.streams[camera].last_at_s > self.silent_s

    def clear(self, now_s: float) -> None:
        """Forget the streams, as after a pause; the counters stay."""
        self._start_afresh()
        for stream in self.streams:
            stream.last_at_s = now_s

    def _fit(self, stamps_s: list[float], now_s: float) -> bool:
        """Whether images with these stamps, one per camera, belong together."""
        newest_s = max(stamps_s)
        return all(
            newest_s - stamp_s <= min(self.sync_s, stream.rhythm.near_s) or self.is_silent(i, now_s)
            for i, (stamp_s, stream) in enumerate(zip(stamps_s, self.streams, strict=True))
        )

    def _start_afresh(self) -> None:
        self._given_s = -math.inf
        for stream in self.streams:
            stream.dropped += stream.waiting is not None
            stream.waiting, stream.last_s, stream.lag_s, stream.rhythm = None, -math.inf, 0.0, Rhythm()


def _stamp_s(stream: _Stream) -> float:
    """Of the image that waits; -inf where none does."""
    return -math.inf if stream.waiting is None else stream.waiting[0]
