"""The whole state machine of every node, driven through the services that a lifecycle manager uses."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from ros_graph import CLASSES, diagnostics, write_blob_models, write_clip

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.msg import HandArray, HandModelInfo
from hand_tracking_ros.nodes.base import latched_qos
from hand_tracking_ros.rig import Rig, RigCamera, save_rig

WALK = [
    (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
    (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
    (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    (Transition.TRANSITION_ACTIVE_SHUTDOWN, State.PRIMARY_STATE_FINALIZED),
]

NODES = sorted({*CLASSES} - {"retarget_node"})  # which needs an optional package and a robot


@pytest.fixture(scope="module")
def parameters(tmp_path_factory):
    """Parameters that any node can start with."""
    folder = tmp_path_factory.mktemp("models")
    write_clip(folder / "clip", count=3)
    save_rig(folder / "rig.yaml", Rig((RigCamera("cam0", 640, 480, Camera(500.0, 500.0, 320.0, 240.0)),)))
    return {**write_blob_models(folder), "camera.source": str(folder / "clip"), "rig.file": str(folder / "rig.yaml")}


def change(ros, node, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return ros.call(ChangeState, f"{node.get_fully_qualified_name()}/change_state", request).success


def state(ros, node) -> int:
    return ros.call(GetState, f"{node.get_fully_qualified_name()}/get_state", GetState.Request()).current_state.id


@pytest.mark.parametrize("name", NODES)
def test_every_node_walks_through_all_states(ros, parameters, name):
    node = ros.node(name, f"/walk_{name}", **parameters)
    assert state(ros, node) == State.PRIMARY_STATE_UNCONFIGURED
    for transition, expected in WALK:
        assert change(ros, node, transition), transition
        assert state(ros, node) == expected
        assert diagnostics(node)["state"] == {1: "unconfigured", 2: "inactive", 3: "active", 4: "finalized"}[expected]


@pytest.mark.parametrize("name", NODES)
def test_subscriptions_and_publishers_are_there_only_when_they_should_be(ros, parameters, name):
    node = ros.node(name, f"/ends_{name}", **parameters)

    def entities() -> tuple[int, int]:
        return len(list(node.subscriptions)), len(list(node.publishers))

    unconfigured = entities()
    node.trigger_configure()
    inactive = entities()
    assert inactive[0] == unconfigured[0] and inactive[1] > unconfigured[1]
    node.trigger_activate()
    assert (entities()[0] > inactive[0]) == (name != "camera_node")
    node.trigger_deactivate()
    assert entities() == inactive
    node.trigger_cleanup()
    assert entities() == unconfigured


def test_model_info_is_latched_and_says_what_runs(ros, parameters):
    node = ros.node("hand_tracker_node", "/latched", **parameters)
    assert node.bring_up()
    late = ros.listen(HandModelInfo, "/latched/model_info", latched_qos())
    ros.until(lambda: late, "model_info")
    models = {model.task: model for model in late[0].models}
    assert set(models) == {"detect", "keypoints"}
    assert models["detect"].name == "blob_detnet" and len(models["detect"].sha256) == 64
    assert (models["detect"].backend, models["detect"].precision) == ("onnxruntime", "fp32")
    assert late[0].joint_names[8] == "index_tip" and len(late[0].skeleton_edges) % 2 == 0


def test_camera_and_tracker_bring_themselves_up_and_hands_carry_the_stamps(ros, parameters):
    from sensor_msgs.msg import CameraInfo

    from hand_tracking_ros.nodes.base import image_qos

    infos = ros.listen(CameraInfo, "/solo/camera_info", image_qos(50))
    hands = ros.listen(HandArray, "/solo/hands")
    tracker = ros.node("hand_tracker_node", "/solo", track__coast_s=1.0, **parameters)
    pacing = {"camera__fps": 4.0, "camera__wait_for_subscribers": 1, "camera__frame_id": "eye"}
    camera = ros.node("camera_node", "/solo", **pacing, **parameters)
    assert tracker.bring_up() and camera.bring_up()
    ros.until(lambda: len(hands) == 3, "hands in all 3 images")
    assert [h.header.stamp for h in hands] == [i.header.stamp for i in infos]
    assert {h.header.frame_id for h in hands} == {"eye"}
    assert [len(h.hands) for h in hands] == [1, 1, 1] and len({h.hands[0].id for h in hands}) == 1
    ros.until(lambda: "(ended)" in diagnostics(camera)["source"], "the end of the clip")


@pytest.mark.parametrize("stages", [False, True], ids=["tracker", "stages"])
def test_the_overlay_shows_the_hand_and_images_are_taken_only_while_somebody_looks(ros, parameters, stages):
    from sensor_msgs.msg import Image

    from hand_tracking_ros.nodes.base import image_qos
    from hand_tracking_ros.nodes.conversions import image_from_message, stamp_ns
    from hand_tracking_ros.nodes.graph import STAGES_GRAPH

    namespace = f"/overlay_{stages}"
    names = STAGES_GRAPH[1:] if stages else ("hand_tracker_node",)
    nodes = {name: ros.node(name, namespace, track__coast_s=1.0, **parameters) for name in names}
    camera = ros.node("camera_node", namespace, camera__fps=5.0, camera__loop=True, **parameters)
    hands = ros.listen(HandArray, f"{namespace}/hands")
    assert all(node.bring_up() for node in [*nodes.values(), camera])
    ros.until(lambda: any(message.hands for message in hands), "a hand")
    last = nodes["filter_node" if stages else "hand_tracker_node"]

    def takes_images() -> bool:
        return any(subscription.topic_name.endswith("image_raw") for subscription in last.subscriptions)

    assert takes_images() != stages
    overlays = ros.listen(Image, f"{namespace}/overlay", image_qos())
    ros.until(lambda: len(overlays) > 2, "overlays")
    assert takes_images()
    drawn = image_from_message(overlays[-1], color=True)
    assert drawn.shape == (480, 640, 3)
    assert (drawn.max(axis=2) - drawn.min(axis=2)).max() > 100, "a grey image without coloured bones"
    assert stamp_ns(overlays[-1].header.stamp) in {stamp_ns(message.header.stamp) for message in hands}
    ros.stop_listening(overlays)
    count = len(hands)
    ros.until(lambda: len(hands) > count + 3 and takes_images() != stages, "the images to be left alone")
