"""Which objects stand together, on what, and how they are laid out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from risbench.scenes import craft, sports, works
from risbench.scenes.canvas import Random
from risbench.scenes.thing import Thing

MAKERS: Final[dict[str, Callable[[Random], Thing]]] = {
    "airplane": craft.airplane,
    "airport": works.airport,
    "baseball-diamond": sports.baseball_diamond,
    "basketball-court": sports.basketball_court,
    "bridge": works.bridge,
    "chimney": works.chimney,
    "container-crane": works.container_crane,
    "dam": works.dam,
    "expressway-service-area": works.service_area,
    "expressway-toll-station": works.toll_station,
    "golffield": sports.golffield,
    "ground-track-field": sports.ground_track_field,
    "harbor": works.harbor,
    "helicopter": craft.helicopter,
    "helipad": works.helipad,
    "overpass": works.overpass,
    "roundabout": works.roundabout,
    "ship": craft.ship,
    "soccer-ball-field": sports.soccer_ball_field,
    "stadium": sports.stadium,
    "storage-tank": works.storage_tank,
    "swimming-pool": sports.swimming_pool,
    "tennis-court": sports.tennis_court,
    "trainstation": works.train_station,
    "vehicle": craft.vehicle,
    "windmill": works.windmill,
}


@dataclass(frozen=True)
class Theme:
    """A kind of place. The first of `focus` that is drawn sets the scale: its size in pixels is drawn, not metres.

    `rows` is the share of objects that come as rows of their like; `water` is none, coast, river or all.
    """

    name: str
    focus: tuple[str, ...]
    others: tuple[str, ...]
    grounds: tuple[str, ...]
    water: str = "none"
    rows: float = 0.3
    roads: tuple[int, int] = (0, 3)
    buildings: tuple[int, int] = (0, 8)
    trees: float = 0.5


_URBAN: Final = ("grass", "asphalt", "concrete", "soil", "dry", "gravel")
_GREEN: Final = ("grass", "grass", "dry", "soil", "forest")
_FLAT: Final = ("concrete", "asphalt", "grass", "dry", "soil", "sand")
_WATER: Final = ("water", "green water", "dark water")

THEMES: Final[tuple[Theme, ...]] = (
    Theme(
        "airfield",
        ("airplane",),
        ("airplane", "airplane", "vehicle", "helicopter"),
        _FLAT,
        rows=0.3,
        roads=(0, 2),
        buildings=(0, 3),
        trees=0.1,
    ),
    Theme(
        "apron",
        ("airplane",),
        ("airplane", "airplane", "vehicle", "vehicle"),
        ("concrete", "concrete", "asphalt"),
        rows=0.5,
        roads=(0, 2),
        buildings=(1, 6),
        trees=0.0,
    ),
    Theme(
        "marina", ("ship", "harbor"), ("ship", "ship", "harbor"), _WATER, water="all", rows=0.5, roads=(0, 0), buildings=(0, 0), trees=0.0
    ),
    Theme("depot", ("storage-tank",), ("storage-tank", "storage-tank", "vehicle", "chimney"), _URBAN, rows=0.6, trees=0.3),
    Theme(
        "park",
        ("tennis-court", "basketball-court"),
        ("tennis-court", "basketball-court", "swimming-pool", "vehicle"),
        _GREEN,
        rows=0.6,
        trees=1.0,
    ),
    Theme(
        "town",
        ("vehicle", "swimming-pool"),
        ("vehicle", "vehicle", "swimming-pool"),
        _URBAN,
        rows=0.35,
        roads=(1, 3),
        buildings=(4, 14),
        trees=1.0,
    ),
    Theme(
        "airbase",
        ("helicopter", "helipad"),
        ("helicopter", "helipad", "airplane", "vehicle"),
        _FLAT,
        roads=(0, 2),
        buildings=(0, 4),
        trees=0.2,
    ),
    Theme(
        "port",
        ("ship", "harbor", "container-crane"),
        ("ship", "harbor", "container-crane", "storage-tank"),
        (*_WATER, "concrete"),
        water="coast",
    ),
    Theme(
        "ballpark",
        ("baseball-diamond",),
        ("baseball-diamond", "soccer-ball-field", "tennis-court", "vehicle"),
        _GREEN,
        rows=0.15,
        trees=1.0,
    ),
    Theme(
        "campus",
        ("ground-track-field", "soccer-ball-field"),
        ("ground-track-field", "basketball-court", "tennis-court", "soccer-ball-field"),
        _GREEN,
        buildings=(2, 9),
        trees=0.9,
    ),
    Theme(
        "arena", ("stadium",), ("stadium", "soccer-ball-field", "vehicle", "ground-track-field"), _URBAN, roads=(1, 3), buildings=(3, 12)
    ),
    Theme(
        "parking",
        ("vehicle",),
        ("vehicle", "vehicle", "vehicle"),
        ("asphalt", "concrete", "gravel", "soil"),
        rows=0.85,
        roads=(0, 2),
        buildings=(1, 6),
    ),
    Theme(
        "highway",
        ("overpass", "expressway-toll-station", "expressway-service-area"),
        ("vehicle", "overpass"),
        _GREEN,
        roads=(1, 2),
        trees=0.8,
    ),
    Theme("junction", ("roundabout",), ("roundabout", "vehicle", "vehicle"), _URBAN, roads=(0, 1), buildings=(2, 10), trees=0.8),
    Theme("river", ("bridge",), ("bridge", "ship", "vehicle"), _GREEN, water="river", rows=0.0, roads=(0, 2), trees=0.8),
    Theme("valley", ("dam",), ("dam", "ship"), ("forest", "soil", "dry", "grass"), rows=0.0, roads=(0, 1), buildings=(0, 3), trees=0.6),
    Theme(
        "region",
        ("airport", "golffield"),
        ("golffield", "airport", "dam"),
        ("forest", "grass", "dry", "soil"),
        rows=0.0,
        roads=(1, 3),
        buildings=(4, 14),
    ),
    Theme(
        "windfarm",
        ("windmill",),
        ("windmill", "windmill", "vehicle"),
        ("grass", "dry", "soil", "forest", "sand", "snow"),
        roads=(0, 2),
        buildings=(0, 2),
    ),
    Theme(
        "works",
        ("chimney", "storage-tank"),
        ("chimney", "storage-tank", "vehicle", "container-crane"),
        _URBAN,
        rows=0.4,
        buildings=(4, 12),
        trees=0.3,
    ),
    Theme("railway", ("trainstation",), ("trainstation", "vehicle"), _URBAN, rows=0.0, roads=(0, 2), buildings=(4, 12)),
    Theme("lido", ("swimming-pool",), ("swimming-pool", "tennis-court", "vehicle"), _GREEN, rows=0.2, buildings=(2, 9), trees=1.2),
)
