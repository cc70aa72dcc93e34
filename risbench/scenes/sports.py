"""Courts, fields, tracks, stadiums, golf fields and pools from above."""

from __future__ import annotations

import numpy as np

from risbench.scenes.canvas import Points, Random, bar, regular
from risbench.scenes.thing import LINE, Layer, Thing, arc, frame, lines, pick, tone

GRASS = (84, 108, 62)
DIRT = (176, 138, 96)


def tennis_court(random: Random) -> Thing:
    """The court within its outer lines, on a slab that other courts may share."""
    a, b = 11.9, 5.5
    grow = pick(random, "", "", "wide")
    slab_a, slab_b = a + random.uniform(2.5, 5.5), b + random.uniform(1.2, 3.2)
    color = pick(random, "blue", "green", "green", "red", "gray", "brown")
    paint = tone(random, color, 16)
    around = paint if grow or random.random() < 0.25 else tone(random, pick(random, "green", "red", "gray", "blue", "brown"), 16)
    width = random.uniform(0.1, 0.3)
    white = tone(random, LINE, 12)
    marks = [
        *frame(-a, a, -b, b, width),
        *lines((-a, -0.75 * b, a, -0.75 * b), (-a, 0.75 * b, a, 0.75 * b), (-0.54 * a, 0, 0.54 * a, 0), width=width),
        *lines((-0.54 * a, -0.75 * b, -0.54 * a, 0.75 * b), (0.54 * a, -0.75 * b, 0.54 * a, 0.75 * b), width=width),
    ]
    net = lines((0, -1.1 * b, 0, 1.1 * b), width=width * 1.2)
    body = bar(-a - width, a + width, -b - width, b + width)
    layers = [Layer([body], paint, grain=4), Layer(marks, white, random.uniform(0.5, 1.0)), Layer(net, (70, 70, 70), 0.7)]
    skirt = [Layer([bar(-slab_a, slab_a, -slab_b, slab_b)], around, 1.0, 4)]
    return Thing("tennis-court", color, [body], layers, skirt=skirt)


def basketball_court(random: Random) -> Thing:
    """The court within its lines; the key, the circle and the three-point arcs."""
    a, b = random.uniform(12.5, 14.3), random.uniform(6.8, 7.7)
    color = pick(random, "gray", "gray", "green", "red", "blue", "orange", "brown")
    paint = tone(random, color, 16)
    white, width = tone(random, LINE, 12), random.uniform(0.12, 0.35)
    key = tone(random, pick(random, "red", "blue", "green", "gray"), 14) if random.random() < 0.6 else paint
    keys = [bar(-a, -a + 5.8, -2.4, 2.4), bar(a - 5.8, a, -2.4, 2.4)]
    marks = [
        *frame(-a, a, -b, b, width),
        *lines((0, -b, 0, b), width=width),
        arc(0, 0, 1.8, 0, 2 * np.pi, width),
        *frame(-a, -a + 5.8, -2.4, 2.4, width),
        *frame(a - 5.8, a, -2.4, 2.4, width),
        arc(-a + 1.6, 0, 6.6, -1.25, 1.25, width),
        arc(a - 1.6, 0, 6.6, np.pi - 1.25, np.pi + 1.25, width),
    ]
    body = bar(-a - width, a + width, -b - width, b + width)
    margin = random.uniform(0.5, 3.5)
    around = paint if random.random() < 0.5 else tone(random, pick(random, "gray", "green", "red", "blue"), 14)
    layers = [Layer([body], paint, grain=5), Layer(keys, key, random.uniform(0.4, 1.0)), Layer(marks, white, random.uniform(0.35, 1.0))]
    slab = bar(-a - margin, a + margin, -b - margin, b + margin)
    return Thing("basketball-court", color, [body], layers, skirt=[Layer([slab], around, 1.0, 5)])


def baseball_diamond(random: Random) -> Thing:
    """The infield: dirt with or without inner grass; the outfield lies around it and is not the object."""
    reach = random.uniform(24, 46)
    dirt = tone(random, DIRT, 20)
    grass = tone(random, GRASS, 14)
    angles = np.linspace(-np.pi / 4, np.pi / 4, 24)
    bulge = random.uniform(0.92, 1.1)
    rim = np.stack([np.cos(angles) * bulge, np.sin(angles)], axis=1) * reach
    nub = random.uniform(0.1, 0.2) * reach
    home = regular(nub, 14)[4:11]
    body = np.vstack([rim, home])
    side = reach * random.uniform(0.58, 0.68)
    diamond = np.array([(0.12, 0), (1, 0.88), (1.88, 0), (1, -0.88)]) * side / 2 * random.uniform(0.96, 1.12)
    inner = pick(random, "grass", "grass", "skinned", "paths")
    layers = [Layer([body], dirt, 1.0, 5)]
    if inner != "skinned":
        layers.append(Layer([diamond], grass, 1.0, 5))
    layers.append(Layer([regular(random.uniform(2.2, 3.4), 16) + (side * 0.53, 0)], dirt * random.uniform(0.9, 1.08)))
    color = "brown" if inner == "skinned" else "green"
    if inner == "paths":
        layers.append(Layer([regular(nub * 0.8, 16) + (0.02 * reach, 0)], dirt))
    far = reach * random.uniform(1.7, 2.6)
    field = np.vstack([np.stack([np.cos(angles * 1.06), np.sin(angles * 1.06)], axis=1) * far, [(-0.16 * reach, 0)]])
    track = np.vstack([np.stack([np.cos(angles * 1.04), np.sin(angles * 1.04)], axis=1) * far * 1.06, [(-0.2 * reach, 0)]])
    skirt = [Layer([field], tone(random, GRASS, 14), random.uniform(0, 1.0), 5)]
    if random.random() < 0.4:
        skirt.insert(0, Layer([track], dirt, 0.9, 5))
    lines_width = random.uniform(0.15, 0.5)
    foul = lines((0, 0, far * 0.7, far * 0.7), (0, 0, far * 0.7, -far * 0.7), width=lines_width)
    skirt.append(Layer(foul, LINE, random.uniform(0, 0.8)))
    return Thing("baseball-diamond", color, [body], layers, skirt=skirt)


def _oval(straight: float, radius: float, count: int = 20) -> Points:
    turn = np.linspace(-np.pi / 2, np.pi / 2, count)
    half = np.stack([np.cos(turn) * radius + straight / 2, np.sin(turn) * radius], axis=1)
    return np.vstack([half, half * -1])


def _pitch(random: Random, a: float, b: float) -> list[Layer]:
    """Return a soccer pitch's grass, stripes and lines within half sides a and b."""
    grass = tone(random, GRASS, 16)
    width = random.uniform(0.15, 0.5)
    layers = [Layer([bar(-a, a, -b, b)], grass, 1.0, 5)]
    if random.random() < 0.4:
        count = int(random.integers(6, 14))
        stripe = [bar(-a + 2 * a * k / count, -a + 2 * a * (k + 1) / count, -b, b) for k in range(0, count, 2)]
        layers.append(Layer(stripe, grass * random.uniform(0.85, 0.95), 0.8, 4))
    u, v = a * 0.97, b * 0.97
    marks = [*frame(-u, u, -v, v, width), *lines((0, -v, 0, v), width=width), arc(0, 0, min(9.15, 0.3 * b), 0, 2 * np.pi, width)]
    marks += [*frame(-u, -u + 0.16 * a * 2, -0.6 * v, 0.6 * v, width), *frame(u - 0.16 * a * 2, u, -0.6 * v, 0.6 * v, width)]
    return [*layers, Layer(marks, LINE, random.uniform(0.1, 0.9))]


def soccer_ball_field(random: Random) -> Thing:
    """A pitch with its lines."""
    a, b = random.uniform(42, 56), random.uniform(28, 37)
    body = bar(-a, a, -b, b)
    return Thing("soccer-ball-field", "green", [body], _pitch(random, a, b))


def ground_track_field(random: Random) -> Thing:
    """A running track and all that it encloses."""
    straight, radius = random.uniform(70, 95), random.uniform(34, 48)
    lane = random.uniform(6, 10)
    color = pick(random, "red", "red", "red", "gray", "brown", "blue", "orange")
    outer, inner = _oval(straight, radius), _oval(straight, radius - lane)
    layers = [Layer([outer], tone(random, color, 16), 1.0, 5)]
    for share in np.linspace(0.15, 0.85, 4):
        edge = _oval(straight, radius - lane * share)
        thin = [np.vstack([edge, edge[:1], (edge * 0.997)[:1], (edge * 0.997)[::-1]])]
        layers.append(Layer(thin, LINE, random.uniform(0, 0.5)))
    layers.append(
        Layer(
            [inner], tone(random, pick(random, "green", "green", "brown"), 12) if random.random() < 0.3 else tone(random, GRASS, 14), 1.0, 6
        )
    )
    if random.random() < 0.8:
        layers += _pitch(random, min(straight * 0.6, 52), (radius - lane) * 0.82)
    return Thing("ground-track-field", color, [outer], layers, shows=("soccer-ball-field",))


def stadium(random: Random) -> Thing:
    """Stands around a field."""
    a, b = random.uniform(80, 150), 0.0
    b = a * random.uniform(0.72, 0.95)
    power = random.uniform(2.2, 5)
    outer = regular(a, 56, b / a, power)
    color = pick(random, "white", "gray", "gray", "blue", "red")
    paint = tone(random, color, 14)
    layers = [Layer([outer], paint, 1.0, 6)]
    layers += [Layer([outer * share], paint * random.uniform(0.7, 1.15), 0.8, 7) for share in (0.93, 0.85, 0.77)]
    seats = tone(random, pick(random, "gray", "blue", "red", "green", "white"))
    hole = random.uniform(0.56, 0.68)
    layers.append(Layer([outer * (hole + 0.1)], seats, 0.9, 9))
    for k in range(int(random.integers(10, 30))):
        angle = 2 * np.pi * k / 20
        cos, sin = np.cos(angle), np.sin(angle)
        layers.append(Layer(lines((hole * a * cos, hole * b * sin, a * 0.98 * cos, b * 0.98 * sin), width=0.8), (120, 120, 120), 0.35))
    layers.append(Layer([outer * hole], tone(random, (150, 84, 66) if random.random() < 0.4 else GRASS, 12), 1.0, 5))
    layers += _pitch(random, min(hole * a * 0.72, 52), min(hole * b * 0.72, 34))
    return Thing("stadium", color, [outer], layers, height=random.uniform(12, 40), shows=("soccer-ball-field",))


def golffield(random: Random) -> Thing:
    """Fairways, greens and bunkers within one rough outline."""
    a = random.uniform(250, 700)
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = 1 + sum(random.normal(0, 0.16 / k) * np.cos(k * angles + random.uniform(0, 6.28)) for k in (1, 2, 3, 5))
    stretch = random.uniform(0.5, 0.95)
    outline = np.stack([np.cos(angles) * radius, np.sin(angles) * radius * stretch], axis=1) * a
    light, rough = tone(random, (112, 138, 76), 12), tone(random, (72, 98, 54), 12)
    layers = [Layer([outline], rough, 0.9, 9)]
    for _ in range(int(random.integers(4, 11))):
        angle, place = random.uniform(0, np.pi), random.uniform(-0.6, 0.6, 2) * (a, a * stretch)
        cos, sin = np.cos(angle), np.sin(angle)
        spot = regular(random.uniform(0.12, 0.35) * a, 24, random.uniform(0.2, 0.4)) @ np.array([[cos, sin], [-sin, cos]]) + place
        layers.append(Layer([spot], light, 0.85, 4))
        for _ in range(2):
            bunker = regular(random.uniform(0.01, 0.03) * a, 12, 0.7) + place + random.normal(0, 0.12 * a, 2)
            layers.append(Layer([bunker], (214, 202, 168), 0.9))
    if random.random() < 0.5:
        pond = regular(random.uniform(0.05, 0.1) * a, 20, 0.6, 2) + random.uniform(-0.5, 0.5, 2) * (a, a * stretch)
        layers.append(Layer([pond], (44, 66, 72), 1.0, 2))
    return Thing("golffield", "green", [outline], layers)


def swimming_pool(random: Random) -> Thing:
    """Water, rounded, kidney-shaped or with lanes, in a deck."""
    form = pick(random, "round", "kidney", "lanes", "plain")
    a = random.uniform(11, 26) if form == "lanes" else random.uniform(3.0, 8.5)
    b = a * random.uniform(0.4, 0.7)
    if form == "kidney":
        t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        radius = 1 + random.uniform(0.1, 0.28) * np.cos(2 * t + random.uniform(-0.5, 0.5)) + random.uniform(0, 0.2) * np.sin(t)
        body = np.stack([np.cos(t) * radius * a, np.sin(t) * radius * b], axis=1)
    else:
        body = regular(a, 40, b / a, {"round": 2.2, "plain": 7.0, "lanes": 24.0}[form])
    water = tone(random, pick(random, "blue") if random.random() < 0.15 else (78, 168, 196), 20)
    layers = [Layer([body], water, 1.0, 5), Layer([body * 0.8], water * random.uniform(0.85, 1.08), 0.6, 4)]
    if form == "lanes":
        marks = lines(*[(-0.97 * a, y * b, 0.97 * a, y * b) for y in np.linspace(-0.75, 0.75, 6)], width=0.3)
        layers.append(Layer(marks, (214, 226, 230), random.uniform(0.2, 0.7)))
    deck = tone(random, pick(random, "white", "gray", "brown", "orange"), 20)
    border = random.uniform(0.6, 4.0)
    skirt = [Layer([regular(a + border, 40, (b + border) / (a + border), random.uniform(3, 12))], deck, random.uniform(0.3, 1.0), 6)]
    return Thing("swimming-pool", "blue", [body], layers, skirt=skirt)
