"""What others take hands as: wrist and palm poses, OpenXR joints, strengths and gestures, a URDF. No ROS in here."""
