"""The synthetic hand generator: anatomy and sides, plausible poses, exact labels, repeatable images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hand_tracking_ros.cli.demo import CLIP, demo_directory
from hand_tracking_ros.errors import SourceError
from hand_tracking_ros.kinematics import FLAT_HAND
from hand_tracking_ros.records import LabelledHand, LabelledImage, read_labels, write_labels
from hand_tracking_ros.skeleton import EDGES, FINGERS, TIPS, Side
from hand_tracking_ros.training.synthetic import bake, people, photo, poses, proportions, scene
from hand_tracking_ros.training.synthetic.backgrounds import Backgrounds, slice_tiles
from hand_tracking_ros.training.synthetic.model import ASSET, CUP, POSE_SIZE, HandModel, turn, vertex_normals
from hand_tracking_ros.training.synthetic.render import Look, SceneHand
from hand_tracking_ros.types import Camera

SIDES = (Side.LEFT, Side.RIGHT)
OPEN = poses.gesture("open", 0.2)


@pytest.fixture(scope="module")
def model() -> HandModel:
    return HandModel()


@pytest.fixture(scope="module")
def renderer(model):
    pytest.importorskip("moderngl", reason="rendering needs moderngl (the train extra)")
    from hand_tracking_ros.errors import HandTrackingError
    from hand_tracking_ros.training.synthetic.render import Renderer

    try:
        renderer = Renderer(model)
    except HandTrackingError as error:
        pytest.skip(str(error))
    yield renderer
    renderer.release()


@pytest.fixture(scope="module")
def generator(renderer):
    from hand_tracking_ros.training.synthetic.dataset import Generator

    return Generator(seed=3, poses=40)


# Model


def test_baked_asset_is_small_and_whole(model):
    assert ASSET.stat().st_size < 2e6
    assert model.num_shapes == 256
    assert np.isfinite(model.vertices).all() and np.isfinite(model.joints).all()
    assert model.faces.max() == model.vertices.shape[1] - 1
    np.testing.assert_allclose(model.bone_weight.sum(axis=1), 1.0, atol=2e-3)


def test_the_kinematic_hand_is_the_mean_of_the_shapes(model):
    points = model.forward(np.arange(model.num_shapes), np.zeros((model.num_shapes, POSE_SIZE)))[1]
    points -= points[:, :1]
    points /= np.linalg.norm(points[:, 9], axis=1)[:, None, None]
    np.testing.assert_allclose(points.mean(axis=0), FLAT_HAND, atol=2e-3)


def test_bones_stretch_along_themselves_and_take_what_hangs_on_them_along():
    """A straight finger along -y, one vertex beside the middle of each phalanx, one on the palm beside its base."""
    count, bones = 4, [bake.BONES.index(f"finger2-{k}.R") for k in (1, 2, 3)]
    points = np.zeros((1, count + len(bake.BONES) + 5, 3))
    joints, tips = points[0, count:-5], points[0, -5:]
    joints[bones] = [(0.4, -1.0, 0), (0.4, -1.4, 0), (0.4, -1.7, 0)]
    tips[:] = (0.4, -2.0, 0)
    for finger in (1, 3, 4, 5):  # others stand apart, so that no phalanx has no length
        joints[[bake.BONES.index(f"finger{finger}-{k}.R") for k in (1, 2, 3)], 1] = -1.0, -1.2, -1.4
    points[0, :4] = [(0.5, -1.2, 0.1), (0.5, -1.55, 0.1), (0.5, -1.85, 0.1), (0.5, -1.0, 0.1)]
    weights = np.zeros((count, len(bake.BONES)))
    weights[[0, 1, 2, 3], [*bones, bake.BONES.index("metacarpal1.R")]] = 1.0
    out = bake.as_people(points, weights)[0]
    x, (first, middle, last) = 0.4 * bake.PALM_WIDTH, bake.PHALANGES[1]
    ends = -1 - np.cumsum([0.4 * first, 0.3 * middle, 0.3 * last])
    np.testing.assert_allclose(out[count:-5][bones], [(x, -1, 0), (x, ends[0], 0), (x, ends[1], 0)])
    np.testing.assert_allclose(out[-4], (x, ends[2], 0))
    middles = -1 - 0.2 * first, (ends[0] + ends[1]) / 2, (ends[1] + ends[2]) / 2
    np.testing.assert_allclose(out[:3], [(x + 0.1, y, 0.1) for y in middles])  # as thick as before
    np.testing.assert_allclose(out[3], (0.5 * bake.PALM_WIDTH, -1.0, 0.1))


def test_proportions_are_measured_on_straight_hands_only(tmp_path, capsys, monkeypatch):
    straight, bent = 100 * FLAT_HAND[:, :2] + 300, 100 * FLAT_HAND[:, :2] + 300
    bent[8] = bent[6]  # an index finger folded back
    images = [
        ("palm/0.jpg", straight),
        ("palm/1.jpg", 1.5 * straight),
        ("palm/2.jpg", bent),
        ("fist/3.jpg", straight * (1, 2)),
    ]
    labels = [LabelledImage(900, 900, (LabelledHand(keypoints_px=points),), file) for file, points in images]
    write_labels(tmp_path / "labels.jsonl", labels)
    count, bones, width = proportions.measured([tmp_path / "labels.jsonl"], ["palm/"])
    own_bones, own_width = proportions.bone_lengths(FLAT_HAND[:, :2])
    assert count == 2 and width == pytest.approx(own_width)
    np.testing.assert_allclose(bones, own_bones)
    monkeypatch.setattr("sys.argv", ["proportions", str(tmp_path / "labels.jsonl"), "--only", "ok/"])
    assert proportions.main() == 2 and "no hand with straight fingers" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["proportions", str(tmp_path / "nowhere.jsonl")])
    assert proportions.main() == 2 and "cannot read" in capsys.readouterr().err


@pytest.mark.parametrize("side", SIDES)
def test_upright_palm_shows_thumb_on_its_own_side(model, side):
    """A right hand with its palm to the camera, fingers up, has its thumb on the right of the image."""
    for shape in (0, 100, 255):
        points = model.posed(shape, OPEN, side, 0.09).keypoints
        towards_thumb = 1 if side == Side.RIGHT else -1
        assert towards_thumb * points[4, 0] > towards_thumb * points[8, 0] > towards_thumb * points[20, 0]
        assert (points[[8, 12, 16, 20], 1] < points[[5, 9, 13, 17], 1]).all()  # y points down, fingers up
        assert (points[[5, 9, 13, 17], 1] < points[0, 1]).all()


@pytest.mark.parametrize("side", SIDES)
def test_mesh_faces_point_outwards(model, side):
    hand = model.posed(7, OPEN, side, 0.09)
    corners = model.skin(hand)[model.faces_of(side)]
    volume = np.einsum("fi,fi->", np.cross(corners[:, 0], corners[:, 1]), corners[:, 2]) / 6
    assert 2e-4 < volume < 5e-3  # cubic metres of a hand with its arm, open at the far end
    normals = vertex_normals(model.skin(hand)[None], model.faces_of(side))[0]
    tips = hand.keypoints[list(TIPS)]
    nearest = np.linalg.norm(model.skin(hand)[:, None] - tips, axis=-1).argmin(axis=0)
    assert ((model.skin(hand)[nearest] - tips) * normals[nearest]).sum(axis=1).min() > 0


def test_palm_has_the_size_asked_for(model):
    for shape, palm_m in ((0, 0.07), (31, 0.088), (200, 0.105)):
        points = model.posed(shape, np.zeros(POSE_SIZE, np.float32), Side.LEFT, palm_m).keypoints
        assert np.linalg.norm(points[9] - points[0]) == pytest.approx(palm_m, rel=1e-5)


def test_bones_keep_their_length_in_every_pose(model):
    rng = np.random.default_rng(0)
    sample = poses.free_poses(20, rng)
    sample[:, CUP] = 0
    points = model.forward(np.full(20, 5), sample)[1]
    for a, b in EDGES:
        if any(a in chain and b in chain for chain in FINGERS.values()) and a not in (1, 2, 5, 9, 13, 17):
            lengths = np.linalg.norm(points[:, b] - points[:, a], axis=-1)
            np.testing.assert_allclose(lengths, lengths[0], rtol=1e-4)


def test_flexion_bends_towards_the_palm_and_abduction_towards_the_thumb(model):
    straight = np.zeros(POSE_SIZE, np.float32)
    for finger in range(1, 5):
        bent, spread = straight.copy(), straight.copy()
        bent[5 * finger], spread[5 * finger + 1] = 60, 10
        tip = TIPS[finger]
        start, after_bend, after_spread = (
            model.posed(0, pose, Side.RIGHT, 0.09).keypoints[tip] for pose in (straight, bent, spread)
        )
        assert after_bend[2] < start[2] - 0.03  # the palm looks to -z
        assert after_spread[0] > start[0] + 0.005


def test_wrist_moves_the_arm_and_not_the_hand(model):
    flexed = OPEN.copy()
    flexed[25] = 40
    rest, bent = (model.posed(3, pose, Side.RIGHT, 0.09) for pose in (OPEN, flexed))
    np.testing.assert_allclose(rest.keypoints, bent.keypoints, atol=1e-7)
    elbow = model.attributes[:, 3] > 1.5
    assert model.skin(bent)[elbow, 2].mean() < model.skin(rest)[elbow, 2].mean() - 0.05  # flexed towards the palm


def test_keypoints_lie_inside_the_flesh(model):
    rng = np.random.default_rng(1)
    for pose in poses.gesture_poses(4, rng):
        hand = model.posed(int(rng.integers(256)), pose, Side.RIGHT, 0.088)
        vertices = model.skin(hand)
        distance = np.linalg.norm(vertices[:, None] - hand.keypoints, axis=-1).min(axis=0)
        assert distance.max() < 0.025 and distance[list(TIPS)].max() < 0.009


# Poses


def test_pose_library_is_plausible_repeatable_and_inside_the_limits(model):
    library = poses.pose_library(24, model, np.random.default_rng(5))
    again = poses.pose_library(24, model, np.random.default_rng(5))
    np.testing.assert_array_equal(library, again)
    assert library.shape == (24, POSE_SIZE)
    assert (library >= poses.LIMITS[:, 0]).all() and (library <= poses.LIMITS[:, 1]).all()
    assert poses.is_plausible(library, model).all()


def test_crossed_fingers_are_rejected(model):
    crossed = poses.gesture("flat", -0.3)
    crossed[6], crossed[11] = -22, 22  # index towards the little finger, middle towards the thumb
    assert not poses.is_plausible(crossed[None], model)[0]
    assert poses.is_plausible(OPEN[None], model)[0]


def test_pinches_bring_thumb_and_a_finger_together(model):
    rng = np.random.default_rng(2)
    pinches = poses.pinch_poses(24, model, rng)
    points = poses.MEAN_UNIT_M * model.forward(np.zeros(24, int), pinches)[1]
    gaps = np.linalg.norm(points[:, [4]] - points[:, [8, 12, 16, 20]], axis=-1).min(axis=1)
    assert np.median(gaps) < 0.025


def test_fists_are_closed_but_for_a_pointing_index(model):
    points = model.forward(np.zeros(60, int), poses.fist_poses(60, model, np.random.default_rng(3)))[1]
    reach = np.linalg.norm(points[:, [8, 12, 16, 20]] - points[:, [0]], axis=-1)
    assert reach[:, 1:].max() < 1.1  # straight fingers reach 1.6 model units and more
    assert 0.7 < (reach[:, 0] < 1.1).mean() < 0.95


def test_grasping_hands_are_half_open(model):
    points = model.forward(np.zeros(60, int), poses.grasp_library(60, model, np.random.default_rng(3)))[1]
    reach = np.linalg.norm(points[:, [8, 12, 16]] - points[:, [0]], axis=-1)
    assert 0.9 < np.median(reach) < 1.6


def test_a_mixture_gives_only_what_it_names(model):
    library = poses.pose_library(30, model, np.random.default_rng(1), {"fist": 1.0})
    points = model.forward(np.zeros(30, int), library)[1]
    assert np.linalg.norm(points[:, [12, 16, 20]] - points[:, [0]], axis=-1).max() < 1.15


def test_trajectory_passes_its_keys_at_rest():
    keys = np.array([[0.0, 1.0], [2.0, -1.0], [1.0, 5.0]])
    key_times = np.array([0.0, 1.0, 3.0])
    np.testing.assert_allclose(poses.trajectory(keys, key_times, key_times), keys)
    near = poses.trajectory(keys, key_times, np.array([0.99, 1.01]))
    assert np.abs(np.diff(near, axis=0) / 0.02).max() < 0.05


# Scenes and pictures


def test_rotations_are_proper():
    rng = np.random.default_rng(4)
    for make in (scene.random_rotation, scene.random_direction_rotation):
        for _ in range(200):
            rotation = make(rng)
            assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-5)
            np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)


@pytest.mark.parametrize(
    ("view", "least", "most"), [("facing", -0.9, 0.9), ("towards", -1.0, -0.5), ("away", 0.5, 1.0)]
)
def test_views_look_along_the_fingers_or_across(view, least, most):
    rng = np.random.default_rng(4)
    fingers = np.array([scene.random_rotation(rng, {view: 1.0}) @ [0, -1, 0] for _ in range(200)])
    depth = fingers[:, 2]  # of the direction of the fingers: -1 points at the camera
    assert ((least <= depth) & (depth <= most)).mean() > 0.9


@pytest.mark.parametrize("radius_m", [0.015, 0.03, 0.045])
def test_a_held_object_lies_before_the_palm_and_in_no_bone(model, radius_m):
    rng = np.random.default_rng(5)
    clear = 0
    for pose in poses.grasp_library(20, model, rng):
        points = model.posed(0, pose, Side.RIGHT, 0.088).keypoints.astype(float)
        axes = np.eye(3)[:, [1, 0, 2]]  # across the palm
        center, _ = scene.grasp(points, axes, radius_m, is_ball=False)
        assert center[2] < points[[0, 5, 17], 2].mean()  # palm side
        gap = (points - center)[:, [1, 2]]
        clear += np.linalg.norm(gap, axis=1).min() > radius_m
        assert np.linalg.norm(center - points[[0, 5, 17]].mean(axis=0)) < 0.12
    assert clear >= 15  # some fists leave no room


def test_a_held_object_is_as_thick_as_the_fingers_leave_room(model):
    """The fingertips are on what the hand holds more often than on a thing of any thickness in its place."""
    rng = np.random.default_rng(7)
    fitting, any_thickness = [], []
    for pose in poses.grasp_library(80, model, rng):
        hand = SceneHand(model.posed(0, pose, Side.RIGHT, 0.088), np.eye(3), np.array([0.0, 0.0, 0.5]), Look())
        held = scene.held_object(hand, rng)
        axis = held.rotation[:, 1]
        across = hand.keypoints_m()[list(TIPS)] - held.translation
        if held.shape == "cylinder" and held.size_m[0] > 0.01:
            across = across - (across @ axis)[:, None] * axis
            fitting.append(np.abs(np.linalg.norm(across, axis=-1) - held.size_m[0] - 0.01).mean())
            points = hand.posed.keypoints.astype(float)
            any_thickness.append(scene.grasp(points, held.rotation, rng.uniform(0.015, 0.055), is_ball=False)[1])
    assert np.median(fitting) < 0.8 * np.median(any_thickness)


def test_grips_bend_each_joint_by_an_angle_of_its_own(model):
    """Gestures bend all joints of a finger in step; things that are held do not ask for that."""
    library = poses.grasp_library(600, model, np.random.default_rng(6))
    base, middle = library[:, 10], library[:, 12]
    assert ((base > 55) & (middle < 30)).mean() > 0.03  # flat fingers around a broad thing
    assert ((base < 15) & (middle > 50)).mean() > 0.03  # hooks
    assert poses.is_plausible(library, model).mean() > 0.95


@pytest.mark.parametrize("worn", [True, False], ids=["wears the camera", "across a table"])
def test_forearms_of_a_setting_come_from_the_elbows_and_the_table_is_below_the_hands(model, worn):
    """In the image the right hand of who wears the camera is on the right, of who faces it on the left."""
    scenes, rng = scene.SceneSampler(model, 3, poses=60), np.random.default_rng(8)
    tilt = turn(np.array([[1.0, 0.0, 0.0]]), np.array([30.0]))[0]
    setting = people.Setting(tilt, np.array([0.0, 0.2, 0.7]), None if worn else np.array([0.0, -0.2, 1.0]))
    person = scenes.person(rng)
    right = [setting.hand(scenes, person, Side.RIGHT, rng, False) for _ in range(60)]
    left = [setting.hand(scenes, person, Side.LEFT, rng, False) for _ in range(60)]
    middle_x = [np.median([hand.keypoints_m()[:, 0].mean() for hand in hands]) for hands in (right, left)]
    assert (middle_x[0] > middle_x[1] + 0.1) == worn and abs(middle_x[0] - middle_x[1]) > 0.1
    forearms = np.array([tilt.T @ hand.rotation @ [0, 1, 0] for hand in right + left])
    to_elbow = np.mean(forearms @ ([0, 0, -1] if worn else [0, 0, 1]))
    assert to_elbow > 0.5, "towards who wears the camera, or back to the other person"
    thumb_up, back_up = (
        np.array([(tilt.T @ hand.rotation @ axis)[1] < -0.8 for hand, axis in zip(right + left, axes)])
        for axes in ([[1, 0, 0]] * 60 + [[-1, 0, 0]] * 60, [[0, 0, 1]] * 120)
    )
    assert 0.2 < thumb_up.mean() < 0.7 and 0.1 < back_up.mean() < 0.6 and (thumb_up | back_up).mean() > 0.5
    tables = 0
    for hand in right:
        for thing in setting.company(person, [hand], rng):
            if thing.shape == "box" and thing.size_m[1] == 0.02:
                top_y = (tilt.T @ thing.translation)[1] - 0.02
                assert top_y > (hand.keypoints_m() @ tilt)[:, 1].max()
                tables += 1
    assert 35 <= tables <= 55  # of 60: three in four


def test_seated_crops_have_arms_that_come_from_people(generator, monkeypatch):
    """A person across the table has the right hand on the left of the image, so its forearm leans to the left."""
    monkeypatch.setattr(generator, "seated", 1.0)
    monkeypatch.setattr(people, "WORN", 0.0)
    seen = [generator.crop(k)[1] for k in range(40)]
    along = np.array([label.keypoints_m[0] - label.keypoints_m[9] for label in seen])
    assert (along[:, 2] > 0).mean() > 0.7, "wrists are further away than knuckles"
    monkeypatch.setattr(generator, "seated", 0.0)
    along = np.array([(label := generator.crop(k)[1]).keypoints_m[0] - label.keypoints_m[9] for k in range(40)])
    assert (along[:, 2] > 0).mean() < 0.7


def test_hidden_hands_of_a_pool_do_not_train(tmp_path):
    pytest.importorskip("torch", reason="needs torch (the train extra)")
    from hand_tracking_ros.training.frames import load_synthetic_frames

    points, visible = np.random.default_rng(9).uniform(20, 200, (3, 21, 2)), np.ones((3, 21), bool)
    visible[1, 1:] = False
    np.savez(tmp_path / "pool.npz", images=np.zeros((2, 240, 320), np.uint8), keypoints=points.astype(np.float32),
             visible=visible, side=np.array([2, 2, 1]), hand_image_index=np.array([0, 0, 1]))  # fmt: skip
    first, second = load_synthetic_frames(tmp_path / "pool.npz")
    assert [h.right for h in first.hands] == [1.0] and [h.right for h in second.hands] == [0.0]


def test_objects_come_without_hands(generator):
    from hand_tracking_ros.training.synthetic.dataset import pack_frames

    samples = [generator.objects(index) for index in range(3)]
    assert all(image.shape == (160, 160) and labels == [] for image, labels in samples)
    again = generator.objects(1)[0]
    np.testing.assert_array_equal(samples[1][0], again)
    arrays = pack_frames(samples)
    assert len(arrays["images"]) == 3 and arrays["keypoints"].shape == (0, 21, 2)


def test_texture_sheets_are_sliced_without_captions():
    sheet = np.full((420, 520, 3), 255, np.uint8)
    for row in range(2):
        for column in range(3):
            sheet[16 + 190 * row :, 16 + 150 * column :][:128, :128] = (40 * column, 90, 60 + 50 * row)
            cv2.putText(sheet, "Tile", (30 + 150 * column, 165 + 190 * row), 0, 0.5, (0, 0, 0), 1)
    tiles = slice_tiles(sheet)
    assert sorted(tuple(tile[50, 50]) for tile in tiles) == sorted(
        (40 * c, 90, 60 + 50 * r) for r in range(2) for c in range(3)
    )
    assert all(np.ptp(tile.reshape(-1, 3), axis=0).max() == 0 for tile in tiles)
    assert slice_tiles(np.random.default_rng(0).integers(0, 200, (200, 300, 3), dtype=np.uint8)) == []


def test_background_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="no background images"):
        Backgrounds([tmp_path], bank_size=1)


def test_backgrounds_with_hands_can_be_left_out(tmp_path):
    for name, value in (("good.png", 60), ("hand.png", 200)):
        cv2.imwrite(str(tmp_path / name), np.full((60, 80, 3), value, np.uint8))
    assert len(Backgrounds([tmp_path], bank_size=1).photos) == 2
    (photo_left,) = Backgrounds([tmp_path], bank_size=1, skip=["hand.png"]).photos
    assert photo_left.max() == 60


def test_motion_blur_does_not_move_anything():
    image = np.zeros((60, 80), np.float32)
    image[25:35, 30:50] = 1.0
    blurred = photo.smear(image, (9.0, -5.0))
    y, x = np.mgrid[:60, :80]
    for axis in (x, y):
        assert (axis * blurred).sum() / blurred.sum() == pytest.approx((axis * image).sum() / image.sum(), abs=0.02)
    assert blurred.max() <= 1.0 and blurred.std() < image.std()


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3)])
def test_pictures_keep_size_and_channels(shape):
    rng = np.random.default_rng(6)
    background = np.full(shape, 0.3, np.float32)
    foreground = np.full((96, 128, *shape[2:]), 0.8, np.float32)
    mask = np.zeros((96, 128), np.float32)
    mask[20:60, 30:80] = 1
    for _ in range(10):
        image = photo.take(foreground, mask, background, photo.random_shot(rng, 48), rng)
        assert image.shape == shape and image.dtype == np.uint8
    plain = photo.take(foreground, mask, background, photo.Shot(), rng)
    assert plain[20, 25].min() > plain[5, 5].max()


# Rendering


def posed_scene(model, side, pose=OPEN, yaw=0.0, z=0.5):
    from hand_tracking_ros.training.synthetic.render import SceneHand

    posed = model.posed(9, pose, side, 0.088)
    rotation = scene.rotation_of(0, 0, yaw)
    return SceneHand(posed, rotation, np.array([0, 0, z]) - rotation @ posed.keypoints.mean(axis=0))


def test_left_hand_is_the_mirror_image_of_the_right(renderer, model):
    from hand_tracking_ros.training.synthetic.render import Lights

    lights = Lights(np.array([0.0, -0.5, -1.0]), fill_direction=np.array([0.0, 0.0, -1.0]))
    camera = Camera(300, 300, 80, 80)
    right, left = (
        renderer.render(camera, (160, 160), [posed_scene(model, s)], lights) for s in (Side.RIGHT, Side.LEFT)
    )
    np.testing.assert_allclose(left[1], right[1][:, ::-1], atol=0.003)
    assert np.abs(left[0] - right[0][:, ::-1]).mean() < 0.01
    assert (right[1] > 0).mean() > 0.1


@pytest.mark.parametrize("side", SIDES)
def test_only_the_near_surface_is_drawn(renderer, model, side):
    """Wrong winding would show the hand's inside: depths must equal the nearest surface of the skinned mesh."""
    from hand_tracking_ros.training.synthetic.render import Lights

    hand = posed_scene(model, side)
    camera = Camera(300, 300, 80, 80)
    _, depth = renderer.render(camera, (160, 160), [hand], Lights(np.array([0.0, -1.0, -1.0])))
    vertices = model.skin(hand.posed) @ hand.rotation.T + hand.translation
    column, row = np.floor(vertices[:, :2] / vertices[:, 2:] * 300 + 80).astype(int).T
    inside = (column >= 0) & (column < 160) & (row >= 0) & (row < 160)
    drawn = depth[row[inside], column[inside]]
    assert (vertices[inside, 2] - drawn)[drawn > 0].min() > -0.012  # no vertex lies before what is drawn
    assert np.median(np.abs(vertices[inside, 2] - drawn)) < 0.02


def test_keypoints_lie_on_the_rendered_hand_and_hidden_ones_are_marked(renderer, model):
    from hand_tracking_ros.training.synthetic.dataset import label_of
    from hand_tracking_ros.training.synthetic.lenses import Lens
    from hand_tracking_ros.training.synthetic.render import Lights, Solid

    camera, lights = Camera(400, 400, 120, 120), Lights(np.array([0.0, -1.0, -1.0]))

    def label(hand, solids=()):
        _, depth = renderer.render(camera, (240, 240), [hand], lights, list(solids))
        return label_of(hand, Lens(camera, (240, 240)), depth, 1.0), depth

    seen, depth = label(posed_scene(model, Side.RIGHT))
    column, row = np.floor(seen.keypoints_px).astype(int).T
    assert (depth[row, column] > 0).all() and seen.visible.all()
    assert (seen.keypoints_m[:, 2] > depth[row, column] - 1e-3).all()  # inside the flesh
    fist, _ = label(posed_scene(model, Side.RIGHT, poses.gesture("fist_thumb_side"), yaw=180))
    assert not fist.visible[[8, 12, 16, 20]].any() and fist.visible[[5, 9, 13, 17]].all()
    wall = Solid("box", np.eye(3), np.array([0.0, 0.0, 0.3]), (0.5, 0.5, 0.01), (0.5, 0.5, 0.5))
    hidden, _ = label(posed_scene(model, Side.RIGHT), [wall])
    assert not hidden.visible.any()


def test_crops_are_repeatable_and_sized_as_promised(generator):
    image, label = generator.crop(5)
    generator.crop(6)
    again, label_again = generator.crop(5)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label.keypoints_px, label_again.keypoints_px)
    sides = []
    for index in range(12):
        image, label = generator.crop(index)
        assert image.shape == (160, 160) and image.dtype == np.uint8
        extent = np.ptp(label.keypoints_px, axis=0).max() / 160
        assert 0.41 < extent < 0.63
        assert np.abs((label.keypoints_px.min(0) + label.keypoints_px.max(0)) / 2 - 80).max() < 20
        assert label.visible.sum() >= 8 and label.depth_rel()[9] == 0
        sides.append(label.side)
    assert set(sides) == {Side.LEFT, Side.RIGHT}


@pytest.mark.parametrize("share", (0.0, 1.0))
def test_holding_is_the_share_of_hands_in_frames_that_hold_something(generator, monkeypatch, share):
    held, held_object = [], scene.held_object
    monkeypatch.setattr(scene, "held_object", lambda hand, rng: held.append(hand) or held_object(hand, rng))
    monkeypatch.setattr(generator, "holding", {"crops": 0.5, "frames": share})
    hands = sum(len(generator.frame(index)[1]) for index in range(8))
    assert hands > 4 and len(held) == share * hands


@pytest.mark.parametrize("share", (0.0, 1.0))
def test_faces_is_the_share_of_crops_with_a_face_behind_the_hand(generator, monkeypatch, share):
    """Some as near as a cheek at the knuckles, some further back."""
    rng = np.random.default_rng(1)
    person = generator.scenes.person(rng)
    monkeypatch.setattr(generator, "faces", share)
    gaps = []
    for _ in range(40):
        hand = generator.scenes.hand(person, Side.LEFT, rng, np.array([0.0, 0.0, 0.5]))
        heads = [solid for solid in generator._company(hand, person, rng) if solid.material == "face"]
        gaps += [head.translation[2] - hand.keypoints_m()[:, 2].max() for head in heads]
    assert len(gaps) == 40 * share
    if share:
        assert np.mean(np.less(gaps, 0.16)) > 0.4 and np.mean(np.greater(gaps, 0.2)) > 0.2


@pytest.mark.parametrize("share, opaque", ((0.0, (1.0, 1.0)), (1.0, (0.2, 0.8))))
def test_some_objects_are_clear(generator, monkeypatch, share, opaque):
    from hand_tracking_ros.training.synthetic import dataset, photo

    masks, take = [], photo.take
    monkeypatch.setattr(dataset, "CLEAR", share)
    monkeypatch.setattr(photo, "take", lambda light, mask, *more: masks.append(mask) or take(light, mask, *more))
    for index in range(6):
        generator.objects(index)
    assert len(masks) == 6 and all(opaque[0] <= mask.max() <= opaque[1] for mask in masks)


def test_frames_pack_into_arrays(generator):
    from hand_tracking_ros.training.synthetic.dataset import pack_frames
    from hand_tracking_ros.training.synthetic.sheet import contact_sheet

    samples = [generator.frame(index) for index in range(10)]
    counts = [len(labels) for _, labels in samples]
    arrays = pack_frames(samples)
    assert arrays["images"].shape == (10, 240, 320) and arrays["images"].dtype == np.uint8
    assert arrays["keypoints"].shape == (sum(counts), 21, 2)
    np.testing.assert_array_equal(np.bincount(arrays["hand_image_index"], minlength=10), counts)
    assert set(arrays["side"]) <= {1, 2} and max(counts) >= 2 and min(counts) == 0
    long_side = (arrays["boxes"][:, 2:] - arrays["boxes"][:, :2]).max(axis=1)
    assert long_side.min() > 13 and long_side.max() < 216
    assert contact_sheet(arrays, columns=5).shape == (480, 1600, 3)


def test_command_writes_a_pool(renderer, tmp_path, capsys):
    from hand_tracking_ros.training.synthetic.__main__ import main

    output, sheet = tmp_path / "pools" / "crops.npz", tmp_path / "sheet.png"
    arguments = [
        "--kind",
        "crops",
        "--count",
        "3",
        "--seed",
        "2",
        "--poses",
        "20",
        "--output",
        str(output),
        "--sheet",
        str(sheet),
    ]
    assert main(arguments) == 0
    with np.load(output) as pool:
        assert pool["images"].shape == (3, 160, 160)
        assert pool["visible"].dtype == bool
    assert cv2.imread(str(sheet)) is not None
    assert "images/s" in capsys.readouterr().out
    assert main([*arguments, "--backgrounds", str(tmp_path / "nowhere")]) == 2
    assert "no background images" in capsys.readouterr().err


def test_the_shipped_clip_is_what_the_generator_makes(renderer):
    from hand_tracking_ros.training.synthetic.demo import labelled, render_demo

    image, labels = next(render_demo(seed=1))
    video = cv2.VideoCapture(str(demo_directory() / CLIP))
    _, shipped = video.read()
    assert np.abs(shipped.astype(int) - image).mean() < 6  # noise and compression
    truth, made = read_labels(demo_directory())[0], labelled(0, labels)
    for a, b in zip(truth.hands, made.hands, strict=True):
        assert a.side == b.side
        np.testing.assert_allclose(a.keypoints_px, b.keypoints_px, atol=0.01)
        np.testing.assert_allclose(a.keypoints_m, b.keypoints_m, atol=1e-5)
