"""Steady metric hand poses from camera images."""


def __getattr__(name: str):
    if name == "__version__":
        from hand_tracking_ros.paths import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
