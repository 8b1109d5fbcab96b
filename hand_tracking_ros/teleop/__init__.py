"""Examples of teleoperation: an arm's target pose with clutch and limits, and retargeting to a robot hand. No ROS."""
