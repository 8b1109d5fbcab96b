"""Renders hands and simple solids with OpenGL, headless over EGL (a GPU, or Mesa's llvmpipe on the CPU).

Everything is in metres in the camera's optical frame (x right, y down, z forward); colours are linear RGB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.skeleton import EDGES, Side
from hand_tracking_ros.training.synthetic import shaders
from hand_tracking_ros.training.synthetic.model import HandModel, PosedHand, unit
from hand_tracking_ros.training.synthetic.solids import SOLID_MESHES
from hand_tracking_ros.types import Camera

Color = tuple[float, float, float]
AWAY = 99.0  # model units behind the wrist: no sleeve, no band


@dataclass(frozen=True)
class Look:
    """Surface of one hand. Distances along the arm in model units behind the wrist (``AWAY``: not worn)."""

    skin_color: Color = (0.55, 0.36, 0.28)
    palm_lightness: float = 0.15
    nail_lightness: float = 0.15
    crease_depth: float = 0.25
    mottle: float = 0.06
    grain: float = 0.08
    relief: float = 0.05
    specular: float = 0.04
    gloss: float = 12.0
    seed: float = 0.0
    sleeve_start: float = AWAY
    sleeve_thickness: float = 0.05
    sleeve_color: Color = (0.2, 0.25, 0.4)
    sleeve_pattern: float = 0.0
    band_start: float = AWAY
    band_end: float = AWAY
    band_color: Color = (0.05, 0.05, 0.05)


@dataclass(frozen=True)
class SceneHand:
    """A posed hand: ``rotation`` (3, 3), det +1, and ``translation`` (3,) metres, camera from hand frame."""

    posed: PosedHand
    rotation: np.ndarray
    translation: np.ndarray
    look: Look = Look()

    def keypoints_m(self) -> np.ndarray:
        """(21, 3) in the camera's optical frame."""
        return self.posed.keypoints @ self.rotation.T + self.translation


@dataclass(frozen=True)
class Solid:
    """A unit sphere, cylinder (axis y) or box, scaled, turned and moved into the camera's frame."""

    shape: str  # "sphere" | "cylinder" | "box"
    rotation: np.ndarray
    translation: np.ndarray
    size_m: tuple[float, float, float]  # half sizes
    color: Color
    second_color: Color = (0.05, 0.04, 0.03)
    material: str = "plain"  # plain | cloth | face | stripes
    specular: float = 0.05
    seed: float = 0.0


@dataclass(frozen=True)
class Lights:
    """One key light with shadows, one fill light without, and a sky. Directions point TO the light."""

    key_direction: np.ndarray
    key_color: Color = (2.0, 2.0, 2.0)
    fill_direction: np.ndarray = field(default_factory=lambda: np.array([0.5, -0.3, -0.8]))
    fill_color: Color = (0.3, 0.3, 0.3)
    sky_color: Color = (0.4, 0.4, 0.4)
    ground_color: Color = (0.2, 0.2, 0.2)
    shadow_strength: float = 0.8
    wrap: float = 0.15


MATERIALS = ("plain", "cloth", "face", "stripes")
CAPSULE_RADII = {"palm": 0.13, "finger": 0.085}  # model units


class Renderer:
    """Owns a GL context and draws scenes. Keep one per process; ``release`` or use as a context manager."""

    def __init__(self, model: HandModel, shadow_px: int = 512):
        self._gl = open_context()
        self.model = model
        self._gl.enable(self._gl.DEPTH_TEST)
        program = self._gl.program
        self._hand = program(vertex_shader=shaders.HAND_VERTEX, fragment_shader=shaders.HAND_FRAGMENT)
        self._solid = program(vertex_shader=shaders.SOLID_VERTEX, fragment_shader=shaders.SOLID_FRAGMENT)
        self._hand_shadow = program(vertex_shader=shaders.HAND_SHADOW_VERTEX, fragment_shader=shaders.SHADOW_FRAGMENT)
        self._solid_shadow = program(vertex_shader=shaders.SOLID_SHADOW_VERTEX, fragment_shader=shaders.SHADOW_FRAGMENT)
        self._shadow_map = self._gl.depth_texture((shadow_px, shadow_px))
        self._shadow_map.compare_func = "<="
        self._shadow_frame = self._gl.framebuffer(depth_attachment=self._shadow_map)
        self._upload_static()
        self._shape_arrays: dict[int, tuple] = {}
        self._solid_arrays = {name: self._upload_solid(*mesh()) for name, mesh in SOLID_MESHES.items()}
        self._frames: dict[tuple[int, int], tuple] = {}
        self._members: dict[int, set[str]] = {}
        self._set(self._hand, palm_creases=palm_creases(model))

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def release(self) -> None:
        self._gl.release()

    def render(self, camera: Camera, size_wh, hands: list[SceneHand], lights: Lights, solids: list[Solid] = ()):
        """(H, W, 3) float32 linear RGB and (H, W) float32 depth in metres, 0 where nothing is. Row 0 is the top."""
        lights_uniforms = self._light_uniforms(lights, hands)
        self._draw_shadows(lights_uniforms, hands, solids)
        frame, color = self._frame(size_wh)
        frame.use()
        frame.clear(0.0, 0.0, 0.0, 0.0)
        self._shadow_map.use(location=0)
        view = {"camera": (camera.fx, camera.fy, camera.cx, camera.cy), "image_size": size_wh}
        capsules = capsule_uniforms(hands)
        for program in (self._hand, self._solid):
            self._set(program, **view, **lights_uniforms, **capsules)
        for solid in solids:
            self._draw_solid(solid)
        for hand in hands:
            self._draw_hand(hand)
        pixels = np.frombuffer(color.read(), np.float16).reshape(size_wh[1], size_wh[0], 4).astype(np.float32)
        return pixels[..., :3], pixels[..., 3]

    def _draw_hand(self, hand: SceneHand) -> None:
        self._gl.enable(self._gl.CULL_FACE)
        # The projection keeps image rows top to bottom, which turns the winding around; so does the mirror.
        self._gl.front_face = "ccw" if hand.posed.side == Side.LEFT else "cw"
        look = {name: value for name, value in vars(hand.look).items()}
        self._set(self._hand, bones=bone_uniform(hand), **look)
        self._hand_arrays(hand.posed.shape)[0].render()

    def _draw_solid(self, solid: Solid) -> None:
        self._gl.disable(self._gl.CULL_FACE)
        linear = solid.rotation * np.array(solid.size_m)
        self._set(
            self._solid, model=solid_matrix(solid), normal_matrix=np.linalg.inv(linear).astype("f4").tobytes(),
            base_color=solid.color, second_color=solid.second_color, material=MATERIALS.index(solid.material),
            specular=solid.specular, seed=solid.seed,
        )  # fmt: skip
        self._solid_arrays[solid.shape][0].render()

    def _draw_shadows(self, light: dict, hands: list[SceneHand], solids: list[Solid]) -> None:
        self._gl.disable(self._gl.CULL_FACE)
        self._shadow_frame.use()
        self._shadow_frame.clear(depth=1.0)
        region = {name: light[name] for name in ("light_x", "light_y", "light_z", "light_range")}
        self._set(self._hand_shadow, **region)
        self._set(self._solid_shadow, **region)
        for hand in hands:
            sleeve = {name: getattr(hand.look, name) for name in ("sleeve_start", "sleeve_thickness")}
            self._set(self._hand_shadow, bones=bone_uniform(hand), **sleeve)
            self._hand_arrays(hand.posed.shape)[1].render()
        for solid in solids:
            self._set(self._solid_shadow, model=solid_matrix(solid))
            self._solid_arrays[solid.shape][1].render()

    def _light_uniforms(self, lights: Lights, hands: list[SceneHand]) -> dict:
        """Uniform values of the lights, and the region around all hands that the shadow map covers."""
        points = np.concatenate([hand.keypoints_m() for hand in hands]) if hands else np.zeros((1, 3))
        center = (points.min(axis=0) + points.max(axis=0)) / 2
        radius = max(0.1, 1.15 * float(np.linalg.norm(points - center, axis=1).max()))
        towards = unit(np.asarray(lights.key_direction, float))
        side = unit(np.cross(towards, [0.0, 1.0, 0.1] if abs(towards[1]) < 0.9 else [1.0, 0.0, 0.0]))
        values = {name: value for name, value in vars(lights).items() if not name.endswith("_direction")}
        return values | {
            "key_direction": tuple(towards), "fill_direction": tuple(unit(np.asarray(lights.fill_direction, float))),
            "light_x": tuple(side), "light_y": tuple(np.cross(towards, side)), "light_z": tuple(-towards),
            "light_range": (*center, radius),
        }  # fmt: skip

    def _upload_static(self) -> None:
        model = self.model
        canonical = model.vertices.mean(axis=0)
        bones = model.bone_index.astype("f4")
        static = np.concatenate([canonical, model.attributes, bones, model.bone_weight], axis=1).astype("f4")
        self._static = self._gl.buffer(static.tobytes())
        self._faces = self._gl.buffer(model.faces.astype("i4").tobytes())

    def _hand_arrays(self, shape: int):
        """Vertex arrays of one hand shape for the colour and for the shadow pass, uploaded on first use."""
        if shape not in self._shape_arrays:
            rest = np.concatenate([self.model.vertices[shape], self.model.normals[shape]], axis=1).astype("f4")
            buffer = self._gl.buffer(rest.tobytes())
            names = ("in_canonical", "in_attributes", "in_bone", "in_weight")
            arrays = []
            for program in (self._hand, self._hand_shadow):
                layout = [layout_of(program, ("in_position", "in_normal"), "3f 3f", buffer)]
                layout.append(layout_of(program, names, "3f 4f 4f 4f", self._static))
                arrays.append(self._gl.vertex_array(program, layout, self._faces))
            self._shape_arrays[shape] = tuple(arrays)
        return self._shape_arrays[shape]

    def _upload_solid(self, vertices, normals, faces):
        buffer = self._gl.buffer(np.concatenate([vertices, normals], axis=1).astype("f4").tobytes())
        indices = self._gl.buffer(faces.astype("i4").tobytes())
        programs = (self._solid, self._solid_shadow)
        layouts = [layout_of(program, ("in_position", "in_normal"), "3f 3f", buffer) for program in programs]
        return tuple(self._gl.vertex_array(p, [layout], indices) for p, layout in zip(programs, layouts, strict=True))

    def _frame(self, size_wh: tuple[int, int]):
        if size_wh not in self._frames:
            color = self._gl.texture(size_wh, 4, dtype="f2")
            depth = self._gl.depth_renderbuffer(size_wh)
            self._frames[size_wh] = self._gl.framebuffer([color], depth), color
        return self._frames[size_wh]

    def _set(self, program, **uniforms) -> None:
        """Set the uniforms that the program has; the compiler drops those that it does not use."""
        known = self._members.get(program.glo) or self._members.setdefault(program.glo, set(program))
        for name, value in uniforms.items():
            if name in known:
                uniform = program[name]
                if isinstance(value, bytes):
                    uniform.write(value)
                else:
                    uniform.value = value


def open_context():
    """A headless OpenGL 3.3 context. Raises HandTrackingError with what to install when there is none."""
    try:
        import moderngl
    except ImportError as error:
        raise HandTrackingError(
            "the hand renderer needs moderngl: pip install '.[train]' in the checkout of hand_tracking_ros"
        ) from error
    try:
        return moderngl.create_context(standalone=True, backend="egl", require=330)
    except Exception as error:  # moderngl raises plain Exceptions
        raise HandTrackingError(
            f"cannot open a headless OpenGL context over EGL ({error}); install a GPU driver with EGL, or Mesa: "
            "apt install libegl1 libgl1-mesa-dri"
        ) from error


def layout_of(program, names: tuple[str, ...], formats: str, buffer):
    """A moderngl vertex layout in which attributes that the compiler removed are padding."""
    parts, used = [], []
    for name, part in zip(names, formats.split(), strict=True):
        if name in program:
            parts.append(part)
            used.append(name)
        else:
            parts.append(f"{4 * int(part[0])}x")
    return (buffer, " ".join(parts), *used)


def bone_uniform(hand: SceneHand) -> bytes:
    """Bone matrices into the camera frame, column by column, for the shader."""
    matrices = np.tile(np.eye(4, dtype=np.float32), (len(hand.posed.bones), 1, 1))
    matrices[:, :3] = hand.rotation @ hand.posed.bones
    matrices[:, :3, 3] += hand.translation
    return matrices.transpose(0, 2, 1).astype("f4").tobytes()


def solid_matrix(solid: Solid) -> bytes:
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = solid.rotation * np.array(solid.size_m)
    matrix[:3, 3] = solid.translation
    return matrix.T.tobytes()


def capsule_uniforms(hands: list[SceneHand]) -> dict:
    """The bones as capsules, for ambient occlusion; beyond ``MAX_CAPSULES`` the last hands cast none."""
    start = np.zeros((shaders.MAX_CAPSULES, 4), np.float32)
    end = np.ones((shaders.MAX_CAPSULES, 4), np.float32)
    count = 0
    for hand in hands:
        if count + len(EDGES) > shaders.MAX_CAPSULES:
            break
        points = hand.keypoints_m()
        for a, b in EDGES:
            radius = CAPSULE_RADII["palm" if b in (1, 2, 5, 9, 13, 17) else "finger"] * hand.posed.unit_m
            start[count, :3], start[count, 3], end[count, :3] = points[a], radius, points[b]
            count += 1
    return {"capsule_count": count, "capsule_start": start.tobytes(), "capsule_end": end.tobytes()}


def palm_creases(model: HandModel) -> bytes:
    """The three main creases of the palm as nine segments in the hand frame's x, y."""
    joints = model.joints.mean(axis=0)[:, :2]
    index, middle, ring, little = (joints[model.finger_bones[f, 0]] for f in (1, 2, 3, 4))
    # Points as a joint and a shift in x (towards the thumb) and y (towards the wrist).
    lines = (
        ((little, -0.16, 0.14), (ring, 0.0, 0.12), (middle, 0.0, 0.08), ((index + middle) / 2, 0.02, -0.02)),  # heart
        ((index, 0.14, 0.16), (middle, 0.0, 0.3), (ring, 0.0, 0.42), (little, -0.08, 0.45)),  # head
        ((index, 0.14, 0.16), (middle, 0.12, 0.38), (middle, 0.1, 0.7), (0 * middle, 0.1, -0.08)),  # life
    )
    points = [[joint + np.array([x, y]) for joint, x, y in line] for line in lines]
    segments = [(*a, *b) for line in points for a, b in pairwise(line)]
    return np.array(segments, np.float32).tobytes()
