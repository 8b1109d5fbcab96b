"""TensorRT engines on disk, so that only the first start builds them.

An engine runs only on the TensorRT version and GPU that it was built for, so both are in its file name. The file is the
sha256 of the engine followed by the engine: what was cut short or changed is noticed and built again.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from pathlib import Path

from hand_tracking_ros.manifest import ModelManifest
from hand_tracking_ros.paths import cache_directory

logger = logging.getLogger("hand_tracking_ros")

_DIGEST_SIZE = hashlib.sha256().digest_size


def engine_cache_path(manifest: ModelManifest, runtime: str, gpu: str, precision: str, max_batch: int) -> Path:
    """Where the engine of a model lies. ``runtime``: 'tensorrt 10.3.0'; ``gpu``: 'Orin SM87'."""
    key = f"{manifest.name}-{manifest.sha256[:16]}-{runtime}-{gpu}-{precision}-batch{max_batch}"
    return cache_directory() / "engines" / (re.sub(r"[^A-Za-z0-9._-]+", "_", key) + ".engine")


def load_engine(path: Path) -> bytes | None:
    """The engine stored at ``path``; None when there is none or when it is damaged (logged)."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("cannot read the cached engine %s: %s; building it again", path, error)
        return None
    digest, engine = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
    if hashlib.sha256(engine).digest() != digest:
        logger.warning("the cached engine %s is damaged; building it again", path)
        return None
    return engine


def store_engine(path: Path, engine: bytes) -> None:
    """Write the engine in one step: readers see the old file or the new one. A full disk is only logged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, delete=False) as stream:
            temporary = Path(stream.name)
            try:
                stream.write(hashlib.sha256(engine).digest() + engine)
                stream.close()
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        logger.warning("cannot cache the engine at %s: %s; it will be built again at the next start", path, error)
