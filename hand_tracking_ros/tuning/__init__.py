"""`hand-tracking tune`: which backend, precision, threads and networks are the fastest here that are accurate enough.

``candidates`` lists what there is, ``measure`` runs each in a process of its own (``worker``) on the shipped clip,
``choice`` judges by accuracy and budget, ``report`` and ``plot`` show it. What is chosen becomes the profile of
the machine (``hand_tracking_ros.profiles``).
"""
