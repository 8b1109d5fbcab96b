"""Unit meshes of simple solids: vertices (N, 3), normals (N, 3), faces (F, 3)."""

from __future__ import annotations

import numpy as np


def sphere_mesh(rings: int = 16, sectors: int = 28):
    """Unit sphere: vertices, normals, faces."""
    polar, around = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, sectors + 1), indexing="ij")
    points = np.stack([np.sin(polar) * np.cos(around), -np.cos(polar), np.sin(polar) * np.sin(around)], axis=-1)
    vertices = points.reshape(-1, 3)
    return vertices, vertices, grid_faces(rings, sectors)


def cylinder_mesh(sectors: int = 32):
    """Unit cylinder along y with caps."""
    around = np.linspace(0, 2 * np.pi, sectors + 1)
    circle = np.stack([np.cos(around), np.zeros_like(around), np.sin(around)], axis=-1)
    up = np.array([0.0, 1.0, 0.0])
    rows = [0 * circle - up, circle - up, circle - up, circle + up, circle + up, 0 * circle + up]
    normals = [0 * circle - up, 0 * circle - up, circle, circle, 0 * circle + up, 0 * circle + up]
    return np.concatenate(rows), np.concatenate(normals), grid_faces(5, sectors)


def box_mesh():
    """Cube of half size one, flat faces."""
    vertices, normals = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = np.zeros(3)
            normal[axis] = sign
            u, v = np.roll(np.eye(3), 1, axis=0)[axis], np.roll(np.eye(3), 2, axis=0)[axis]
            vertices += [normal - u - v, normal + u - v, normal - u + v, normal + u + v]
            normals += [normal] * 4
    faces = np.concatenate([np.array([(0, 1, 2), (2, 1, 3)]) + 4 * k for k in range(6)])
    return np.array(vertices), np.array(normals), faces


def grid_faces(rows: int, columns: int) -> np.ndarray:
    first = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).ravel()
    right, below, far = first + 1, first + columns + 1, first + columns + 2
    return np.concatenate([np.stack([first, right, below], 1), np.stack([right, far, below], 1)])


SOLID_MESHES = {"sphere": sphere_mesh, "cylinder": cylinder_mesh, "box": box_mesh}
