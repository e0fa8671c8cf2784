"""The shapes of vehicles as data: prisms from side profiles, wheels, lamps.

Must hold: shapes differ clearly between kinds at a few pixels (a low sedan, a tall SUV with roof rails, a van without
a hood, a truck with its box, a motorcycle with its rider).
"""

Vertex = tuple[float, float, float]  # z along, y up, half width
# (role of the face from each vertex to the next, role of the two sides, profile);
# roles: b body, g glass, r roof, k black, c cargo
Prism = tuple[str, str, tuple[Vertex, ...]]
PRISMS: dict[str, tuple[Prism, ...]] = {
    "Sedan": (
        ("bbbkbb", "b", (
            (2.25, 0.3, 0.9), (2.2, 0.75, 0.9), (1.0, 0.92, 0.9),
            (-1.5, 0.95, 0.9), (-2.25, 0.9, 0.88), (-2.25, 0.3, 0.88),
        )),
        ("grgk", "g", ((1.0, 0.9, 0.82), (0.1, 1.42, 0.62), (-0.95, 1.42, 0.62), (-1.75, 0.93, 0.82))),
    ),
    "SUV": (
        ("bbbkbk", "b", (
            (2.3, 0.45, 1.0), (2.25, 1.15, 1.0), (1.1, 1.25, 1.0),
            (-2.2, 1.25, 1.0), (-2.3, 1.1, 1.0), (-2.3, 0.45, 1.0),
        )),
        ("grgk", "g", ((1.1, 1.22, 0.95), (0.55, 1.95, 0.85), (-2.1, 1.98, 0.85), (-2.25, 1.22, 0.95))),
        ("kkkk", "k", ((0.3, 1.97, 0.8), (0.3, 2.12, 0.8), (-1.9, 2.12, 0.8), (-1.9, 1.98, 0.8))),
    ),
    "Van": (
        ("bbkrbk", "b", (
            (2.6, 0.35, 1.05), (2.6, 1.15, 1.05), (1.9, 1.3, 1.05),
            (1.2, 2.65, 0.95), (-2.6, 2.7, 0.98), (-2.6, 0.35, 1.05),
        )),
    ),
    "Truck": (
        ("kkkk", "k", ((3.7, 0.4, 1.1), (3.7, 0.9, 1.1), (-3.7, 0.9, 1.1), (-3.7, 0.4, 1.1))),
        ("cccc", "c", ((1.7, 0.9, 1.25), (1.7, 3.6, 1.25), (-3.75, 3.6, 1.25), (-3.75, 0.9, 1.25))),
        ("bgrbk", "b", ((3.75, 0.5, 1.15), (3.75, 1.5, 1.15), (3.5, 2.6, 1.1), (1.8, 2.6, 1.1), (1.8, 0.5, 1.15))),
    ),
    "Motorcycle": (
        ("bbbb", "b", ((1.0, 0.6, 0.2), (0.9, 1.1, 0.24), (-1.1, 1.1, 0.24), (-1.1, 0.6, 0.2))),
        ("kkkk", "k", ((0.45, 1.05, 0.36), (0.3, 1.75, 0.44), (-0.4, 1.75, 0.44), (-0.5, 1.05, 0.42))),
    ),
}  # fmt: skip
# kind -> wheels (z, radius)
WHEELS = {
    "Sedan": ((1.4, 0.36), (-1.4, 0.36)),
    "SUV": ((1.45, 0.46), (-1.45, 0.46)),
    "Van": ((1.7, 0.4), (-1.7, 0.4)),
    "Truck": ((2.7, 0.55), (-1.6, 0.55), (-2.8, 0.55)),
    "Motorcycle": ((0.95, 0.48), (-0.95, 0.48)),
}
# kind -> lamps (height, half their distance)
LAMPS = {"Sedan": (0.7, 0.66), "SUV": (0.95, 0.74), "Van": (0.85, 0.8), "Truck": (0.85, 0.9), "Motorcycle": (1.1, 0.0)}
