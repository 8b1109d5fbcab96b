"""Images of several cameras, brought together by their stamps into what a tracker takes in one step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

OLDEST_S = 0.1  # an image that is older than the newest of its group by more than this says too little about now

Item = TypeVar("Item")


@dataclass
class _Stream(Generic[Item]):
    """One camera's images. Times with ``_at_s`` are the caller's clock, others are stamps."""

    last_at_s: float
    last_s: float = -math.inf
    waiting: tuple[float, Item] | None = None  # stamp and image, not processed so far
    lag_s: float = 0.0
    arrived: int = 0
    dropped: int = 0
    dropouts: int = 0


class FrameGroups(Generic[Item]):
    """The newest image of each camera, given out together once all have one, or after a short wait.

    Images whose stamps differ by at most ``sync_s`` belong together: synchronised cameras make complete groups, and
    free-running ones fall into a rhythm in which near images meet. The first image of a group waits ``wait_s``
    for the others, and not at all for a camera that has been silent for ``silent_s``. ``now_s`` is any steady clock.

    Stamps of successive groups increase; a camera whose stamps go back starts everything afresh (a bag that loops).
    """

    def __init__(self, count: int, now_s: float, sync_s: float = 0.017, wait_s: float = 0.02, silent_s: float = 0.5):
        self.sync_s, self.wait_s, self.silent_s = sync_s, wait_s, silent_s
        self.streams: list[_Stream[Item]] = [_Stream(now_s) for _ in range(count)]
        self._given_s = -math.inf

    def add(self, camera: int, stamp_s: float, item: Item, now_s: float) -> None:
        """An image has arrived. One that was not given out before is dropped for it, and counted."""
        stream = self.streams[camera]
        if self.is_silent(camera, now_s) and stream.arrived:
            stream.dropouts += 1
        stream.last_at_s = now_s
        stream.arrived += 1
        if stamp_s < stream.last_s:
            self._start_afresh()
        if stamp_s == stream.last_s:
            stream.dropped += 1
            return
        others = [s.last_s for i, s in enumerate(self.streams) if i != camera and not self.is_silent(i, now_s)]
        stream.lag_s = max(max(others, default=stamp_s) - stamp_s, 0.0)
        stream.dropped += stream.waiting is not None
        stream.last_s, stream.waiting = stamp_s, (stamp_s, item)

    @property
    def has_news(self) -> bool:
        """Whether an image waits that is newer than all that were given out. Older ones wait for company."""
        return any(stream.waiting is not None and stream.waiting[0] > self._given_s for stream in self.streams)

    def is_complete(self, now_s: float) -> bool:
        """Whether there is nothing to wait for."""
        if not self.has_news:
            return False
        earliest_s = self._newest_s() - self.sync_s
        return all(
            self.is_silent(i, now_s) or (stream.waiting is not None and stream.waiting[0] >= earliest_s)
            for i, stream in enumerate(self.streams)
        )

    def take(self) -> list[Item | None]:
        """What waits, per camera; None from a camera that has nothing new. Call it when ``has_news``."""
        self._given_s = self._newest_s()
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

    def _newest_s(self) -> float:
        return max(stream.waiting[0] for stream in self.streams if stream.waiting is not None)

    def _start_afresh(self) -> None:
        self._given_s = -math.inf
        for stream in self.streams:
            stream.dropped += stream.waiting is not None
            stream.waiting, stream.last_s, stream.lag_s = None, -math.inf, 0.0
