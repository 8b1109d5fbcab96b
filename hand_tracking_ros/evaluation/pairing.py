"""Images of several sources that belong together, by their stamps."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from hand_tracking_ros.errors import SourceError
from hand_tracking_ros.sources import Source, SourceImage

log = logging.getLogger(__name__)


class Stream:
    """The images of a ``source``, in turn (``next``) or by time (``at``). ``read``: how many so far."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.read = 0
        self.ended = False
        self._waiting: list[SourceImage] = []  # at most two: before and after the last stamp that was asked for

    def next(self) -> SourceImage | None:
        """The next image; None at the end."""
        item = None if self.ended else self.source.read()
        self.ended = item is None
        self.read += item is not None
        return item

    def at(self, stamp_s: float, limit_s: float) -> SourceImage | None:
        """The image nearest to ``stamp_s``, which rises from call to call; None where none is within ``limit_s``.

        No image comes twice. Where all stamps are those asked for, it reads one image per call.
        """
        while not self.ended and (not self._waiting or self._waiting[-1].stamp_s < stamp_s):
            item = self.next()
            if item is not None:
                self._waiting = [*self._waiting[-1:], item]
        nearest = min(self._waiting, key=lambda item: abs(item.stamp_s - stamp_s), default=None)
        if nearest is None or abs(nearest.stamp_s - stamp_s) > limit_s:
            return None
        self._waiting = [item for item in self._waiting if item.stamp_s > nearest.stamp_s]
        return nearest

    def total(self) -> int:
        """How many images there are, with those that were not read; to be called last, as it may read one."""
        if self.next() is None:
            return self.read
        return max(self.read, len(self.source))


class PairedSources:
    """One image of each of ``sources`` at a time: each of the slowest one, with the nearest in time of every other.

    Stamps differ by at most half the time since the slowest one's last image. ``names``: of the cameras, for what is
    said. Raises SourceError for files among live cameras: nothing says which images belong together.
    """

    def __init__(self, sources: Sequence[Source], names: Sequence[str]) -> None:
        if len({source.live for source in sources}) > 1:
            kinds = ", ".join(f"{name} {'live' if s.live else 'a file'}" for name, s in zip(names, sources))
            raise SourceError(
                f"live cameras and files have no common time, so that their images cannot be paired: {kinds}; give "
                "files for all cameras, or live cameras for all"
            )
        self._names = names
        self._streams = [Stream(source) for source in sources]
        self._lead = min(self._streams, key=lambda stream: stream.source.fps)
        self._last_s = math.inf
        self._pairs = 0

    @property
    def slowest(self) -> Source:
        """The source that says when there is a step."""
        return self._lead.source

    def read(self) -> list[SourceImage] | None:
        """The next images that belong together, in the order of the sources; None when one of them has ended.

        Raises SourceError when they end without a single one.
        """
        while (first := self._lead.next()) is not None:
            # Cameras need not keep the rate that they state.
            limit_s = 0.5 * max(1 / self.slowest.fps, first.stamp_s - self._last_s)
            self._last_s = first.stamp_s
            items = [first if stream is self._lead else stream.at(first.stamp_s, limit_s) for stream in self._streams]
            if all(item is not None for item in items):
                self._pairs += 1
                return items
            if any(item is None and stream.ended for item, stream in zip(items, self._streams)):
                break
        if not self._pairs:
            raise SourceError(
                f"no images of {' and '.join(self._names)} were taken at the same time: give sources that run at the "
                "same time, or one rate for all (fps)"
            )
        return None

    def warn(self, ended: bool) -> None:
        """Log how many images of each source found no partner; ``ended``: with those after the end of another one."""
        rates = ", ".join(f"{stream.source.fps:g}" for stream in self._streams)
        for name, stream in zip(self._names, self._streams):
            total = stream.total() if ended else stream.read
            alone = total - self._pairs
            if self._pairs and alone > (0 if ended else 2):  # two may still find one
                log.warning(
                    f"{name}: {alone} of {total} images are left out, as no image of the other cameras is near enough "
                    f"in time (rates: {rates} Hz). Where all were taken in pairs, the rates are wrong: give one (fps)"
                )
