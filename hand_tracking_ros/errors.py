"""Errors that users meet. Each message says what is wrong, where, and how to put it right."""


class HandTrackingError(Exception):
    """Base of all errors that this package raises on bad input or a broken installation."""


class ConfigError(HandTrackingError, ValueError):
    """A parameter has an unknown name or a value out of range."""


class ModelError(HandTrackingError):
    """A model file or manifest is missing, damaged or does not fit."""


class BackendError(HandTrackingError):
    """An inference backend is not installed or cannot run the model."""


class ImageError(HandTrackingError, ValueError):
    """An image cannot be read: unknown encoding, wrong size, truncated data."""


class SourceError(HandTrackingError):
    """A camera, video or folder cannot be opened or ended unexpectedly."""


class CalibrationError(HandTrackingError, ValueError):
    """A camera calibration is missing, malformed or not finite."""


class RecordError(HandTrackingError, ValueError):
    """A labels or tracking file (docs/evaluation.md) is missing or malformed."""


class TransformError(HandTrackingError, ValueError):
    """Transforms between frames are missing, make no chain, or are no transforms."""
