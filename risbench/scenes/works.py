"""Built works from above: bridges, harbours, tanks, dams, stations, airports and the like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from risbench.scenes.canvas import Points, Random, Scalar, bar, regular, ribbon, turned
from risbench.scenes.craft import airplane, ship, vehicle
from risbench.scenes.sports import GRASS
from risbench.scenes.thing import GLASS, LINE, Layer, Thing, arc, frame, lines, pick, tone

ASPHALT = (96, 97, 100)
CONCRETE = (168, 166, 160)


def _moved(layer: Layer, angle: Scalar, x: Scalar, y: Scalar) -> Layer:
    return Layer([turned(part, angle) + np.array([x, y]) for part in layer.points], layer.color, layer.opacity, layer.grain)


def _with(thing: Thing, angle: Scalar, x: Scalar, y: Scalar) -> list[Layer]:
    """Return another thing's layers placed on this one: boats at a pier, cars on a deck."""
    return [_moved(layer, angle, x, y) for layer in thing.layers]


def _road_deck(random: Random, a: float, b: float) -> list[Layer]:
    """Return a road deck's surface, parapets, lane marks and a few vehicles."""
    paint = tone(random, ASPHALT if random.random() < 0.6 else CONCRETE, 14)
    edge = [bar(-a, a, -b, -b + 0.08 * b), bar(-a, a, b - 0.08 * b, b)]
    layers = [Layer([bar(-a, a, -b, b)], paint, 1.0, 5), Layer(edge, tone(random, CONCRETE, 18), random.uniform(0.3, 1.0))]
    dashes = [bar(x, x + 3, -0.12, 0.12) for x in np.arange(-a, a - 3, 9)]
    if random.random() < 0.8 and len(dashes) < 60:
        layers.append(Layer(dashes, LINE, random.uniform(0.2, 0.9)))
    for _ in range(int(random.integers(0, 5))):
        car = vehicle(random)
        if car.size[1] < b * 0.8:
            sign = 1 if random.random() < 0.5 else -1
            layers += _with(car, 0.0 if sign > 0 else np.pi, random.uniform(-0.85, 0.85) * a, sign * 0.45 * b)
    return layers


def bridge(random: Random) -> Thing:
    """A deck over water, straight or curved, single or twin, of road or rail; its approaches go on beyond it."""
    a = random.uniform(18, 160)
    b = min(random.uniform(2.5, 16), a * 0.4)
    deck = _road_deck(random, a, b)
    x = np.linspace(-a, a, 20)
    bend = random.uniform(-0.35, 0.35) * a if random.random() < 0.25 else 0.0
    line = np.stack([x, bend * ((x / a) ** 2 - 0.5)], axis=1)
    body = ribbon(line, b) if bend else bar(-a, a, -b, b)
    layers = [Layer([body], deck[0].color, 1.0, 5), *([] if bend else deck[1:])]
    if bend:
        layers += [Layer([ribbon(line, b), ribbon(line, 0.9 * b)], CONCRETE, random.uniform(0, 0.4))]
    elif random.random() < 0.25:
        layers.append(Layer([bar(-a, a, -0.08 * b, 0.08 * b)], (40, 46, 50), random.uniform(0.4, 1.0)))
    if random.random() < 0.3:
        layers.append(Layer([bar(x, x + 0.6, -b, b) for x in np.arange(-a, a, 6)][:40], (80, 84, 88), 0.5 if not bend else 0.0))
    approach = deck[0].color if random.random() < 0.7 else tone(random, ASPHALT, 12)
    ends = [bar(-a * 4 - 200, -a, -b * 0.85, b * 0.85), bar(a, a * 4 + 200, -b * 0.85, b * 0.85)]
    if bend:
        slope = 2 * bend / a
        ends = [ribbon(np.array([(side * a, bend / 2), (side * (a + 300), bend / 2 + 300 * slope)]), b * 0.85) for side in (-1, 1)]
    return Thing("bridge", "gray", [body], layers, height=random.uniform(2, 14), skirt=[Layer(ends, approach, 1.0, 5)], shows=("vehicle",))


def overpass(random: Random) -> Thing:
    """A road over another road."""
    a, b = random.uniform(16, 70), random.uniform(4, 14)
    body = bar(-a, a, -b, b)
    under = tone(random, ASPHALT, 12)
    w = random.uniform(5, min(14, a * 0.7))
    below = [Layer([bar(-w, w, -400, 400)], under, 1.0, 5), Layer([bar(-0.2, 0.2, -400, 400)], LINE, 0.7)]
    approach = [Layer([bar(-500, 500, -b * 0.9, b * 0.9)], under * random.uniform(0.9, 1.1), 1.0, 5)]
    return Thing(
        "overpass", "gray", [body], _road_deck(random, a, b), height=random.uniform(4, 8), skirt=[*below, *approach], shows=("vehicle",)
    )


def roundabout(random: Random) -> Thing:
    """A ring of road around an island, with the roads that meet it."""
    radius = random.uniform(12, 42)
    width = radius * random.uniform(0.28, 0.45)
    paint = tone(random, ASPHALT, 12)
    ring, island = regular(radius, 48), regular(radius - width, 40)
    layers = [
        Layer([ring], paint, 1.0, 5),
        Layer([island], tone(random, pick(random, "gray", "brown") if random.random() < 0.2 else GRASS, 12), 1.0, 7),
    ]
    layers.append(Layer([arc(0, 0, radius - width / 2, 0, 6.283, 0.3)], LINE, random.uniform(0, 0.6)))
    if random.random() < 0.5:
        layers.append(
            Layer([regular((radius - width) * random.uniform(0.3, 0.6), 20)], tone(random, pick(random, "gray", "green", "red")), 0.8, 8)
        )
    start, count = random.uniform(0, 6.28), int(random.integers(3, 6))
    arms = [turned(bar(0, 600, -width * 0.45, width * 0.45), start + 6.283 * k / count) for k in range(count)]
    for _ in range(int(random.integers(0, 4))):
        angle = random.uniform(0, 6.28)
        x, y = np.cos(angle) * (radius - width / 2), np.sin(angle) * (radius - width / 2)
        layers += _with(vehicle(random), angle + np.pi / 2, x, y)
    return Thing("roundabout", "gray", [ring], layers, skirt=[Layer(arms, paint, 1.0, 5)], shows=("vehicle",))


def toll_station(random: Random) -> Thing:
    """A canopy across a widened road, with lanes and booths."""
    half, depth = random.uniform(14, 45), random.uniform(4, 9)
    canopy = bar(-depth, depth, -half, half)
    color = pick(random, "blue", "red", "white", "gray", "green")
    paint = tone(random, color, 12)
    plaza = np.array(
        [
            (-140, -0.35 * half),
            (-35, -half),
            (35, -half),
            (140, -0.35 * half),
            (140, 0.35 * half),
            (35, half),
            (-35, half),
            (-140, 0.35 * half),
        ]
    )
    road = bar(-700, 700, -0.35 * half, 0.35 * half)
    asphalt = tone(random, CONCRETE if random.random() < 0.5 else ASPHALT, 12)
    lanes = lines(*[(-70, y, 70, y) for y in np.arange(-0.9 * half, half, 5)], width=0.7)
    ribs = [bar(-depth, depth, y - 0.3, y + 0.3) for y in np.arange(-0.9 * half, half, 6)]
    layers = [
        Layer([canopy], paint, 1.0, 4),
        Layer(ribs, paint * 0.8, random.uniform(0, 0.8)),
        Layer([bar(-depth * 0.15, depth * 0.15, -half, half)], paint * 1.12, 0.6),
    ]
    skirt = [Layer([road, plaza], asphalt, 1.0, 5), Layer(lanes, LINE, 0.6)]
    return Thing("expressway-toll-station", color, [canopy], layers, height=7.0, skirt=skirt)


def service_area(random: Random) -> Thing:
    """A paved compound beside an expressway: buildings, a fuel canopy, parked cars."""
    a, b = random.uniform(60, 130), random.uniform(30, 60)
    body = np.array([(-a, -b), (-0.72 * a, b), (0.72 * a, b), (a, -b)])
    paved = tone(random, CONCRETE if random.random() < 0.5 else ASPHALT, 12)
    layers = [Layer([body], paved, 1.0, 6)]
    roof = tone(random, pick(random, "red", "blue", "gray", "white", "brown"))
    layers.append(Layer([bar(-0.3 * a, 0.25 * a, 0.35 * b, 0.75 * b)], roof, 1.0, 4))
    layers.append(Layer([bar(-0.3 * a, 0.25 * a, 0.55 * b, 0.75 * b)], roof * 0.82, 1.0, 4))
    layers.append(Layer([bar(0.45 * a, 0.62 * a, -0.2 * b, 0.25 * b)], tone(random, pick(random, "white", "red", "blue"))))
    for x in np.arange(-0.6 * a, 0.35 * a, 3.6):
        if random.random() < 0.55:
            layers += _with(vehicle(random), np.pi / 2, x, -0.35 * b)[:2]
    layers.append(
        Layer(lines(*[(x - 1.8, -0.5 * b, x - 1.8, -0.2 * b) for x in np.arange(-0.6 * a, 0.35 * a, 3.6)], width=0.25), LINE, 0.6)
    )
    road = tone(random, ASPHALT, 10)
    skirt = [Layer([bar(-900, 900, -b - 30, -b - 6)], road, 1.0, 5), Layer([bar(-1.6 * a, 1.6 * a, -b - 8, -b + 4)], road, 1.0, 5)]
    return Thing("expressway-service-area", "gray", [body], layers, skirt=skirt, shows=("vehicle",))


def harbor(random: Random) -> Thing:
    """A pier; where boats lie close along both sides the mask takes them in, as annotators do."""
    a = random.uniform(15, 80)
    b = random.uniform(0.8, 2.5)
    deck = tone(random, pick(random, "gray", "gray", "white", "brown"), 14)
    pier = bar(-a, a, -b, b)
    crowded = random.random() < 0.65
    layers: list[Layer] = []
    boat = random.uniform(7, 15)
    fleet = [one for one in (ship(random) for _ in range(6)) if one.size[0] <= 30][:4]
    sides = (-1, 1) if random.random() < 0.75 else (1,)
    berthed: dict[tuple[int, int], list[Points]] = {}
    for side in sides:
        reach = b + boat * 0.62
        for x in np.arange(-a + 2, a - 1, boat * random.uniform(0.34, 0.5)):
            if fleet and random.random() < (0.88 if crowded else 0.3):
                kind = int(random.integers(len(fleet)))
                turn = turned(np.eye(2), np.pi / 2 * side) * boat * random.uniform(0.75, 1.0) / fleet[kind].size[0]
                for number, layer in enumerate(fleet[kind].layers[:3]):
                    berthed.setdefault((kind, number), []).extend(part @ turn + np.array([x, side * reach]) for part in layer.points)
    for (kind, number), parts in sorted(berthed.items()):
        layers.append(replace(fleet[kind].layers[number], points=parts))
    fingers = [bar(x - 0.4, x + 0.4, -b - boat * 0.8 if -1 in sides else 0, b + boat * 0.8) for x in np.arange(-a + 1, a, boat)]
    layers.append(Layer([pier], deck, 1.0, 4))
    if crowded:
        low = -b - boat * 1.1 if -1 in sides else -b
        body = [bar(-a, a, low, b + boat * 1.1)]
        layers.insert(0, Layer(fingers, deck, random.uniform(0, 1)))
    else:
        body = [pier]
        if random.random() < 0.4:
            head = bar(a - 2, a + random.uniform(2, 8), -b - random.uniform(3, 10), b + random.uniform(3, 10))
            body.append(head)
            layers.append(Layer([head], deck, 1.0, 4))
    skirt = [Layer([bar(-a - 60, -a + 1, -b, b)], deck, 1.0, 4)]
    return Thing("harbor", "gray", body, layers, height=1.0, skirt=skirt, shows=("ship",))


def dam(random: Random) -> Thing:
    """A straight or arched wall, dark water on one side, a spillway or bare ground on the other."""
    a, thick = random.uniform(60, 400), 0.0
    thick = a * random.uniform(0.05, 0.16)
    bend = random.uniform(0, 0.45) * a if random.random() < 0.6 else 0.0
    x = np.linspace(-a, a, 24)
    line = np.stack([x, bend * (x / a) ** 2 - bend / 2], axis=1)
    body = ribbon(line, thick / 2)
    paint = tone(random, pick(random, "gray", "white", "gray", "brown"), 12)
    layers = [Layer([body], paint, 1.0, 6), Layer([ribbon(line, thick * 0.15)], paint * random.uniform(0.7, 1.2), 0.9, 3)]
    gates = [ribbon(line[k : k + 2], thick * 0.45) for k in range(6, 18, 2)]
    layers.append(Layer(gates, paint * 0.75, random.uniform(0, 0.7)))
    far = 3.0 * a
    lake = np.vstack([line, [(a * 1.1, -far), (-a * 1.1, -far)]])
    river = np.vstack([line[8:16], [(0.35 * a, far), (-0.35 * a, far)]])
    water = tone(random, (44, 70, 76), 12)
    skirt = [Layer([lake], water, 1.0, 2), Layer([river], water * 1.15, random.uniform(0.3, 1.0), 6)]
    return Thing("dam", "gray", [body], layers, height=8.0, skirt=skirt)


def airport(random: Random) -> Thing:
    """Runways, taxiways, aprons and terminals: the whole field."""
    a = random.uniform(700, 1900)
    b = a * random.uniform(0.25, 0.5)
    paved = tone(random, CONCRETE if random.random() < 0.4 else ASPHALT, 12)
    field = regular(a * 1.04, 24, b / a, 6)
    runway = [bar(-a, a, -0.72 * b, -0.72 * b + random.uniform(40, 70))]
    if random.random() < 0.35:
        runway.append(turned(bar(-0.75 * a, 0.75 * a, -25, 25), random.uniform(0.3, 0.8) * (1 if random.random() < 0.5 else -1)))
    taxi = [
        bar(-0.95 * a, 0.95 * a, -0.3 * b, -0.3 * b + 25),
        *[bar(x * a, x * a + 25, -0.7 * b, -0.28 * b) for x in (-0.9, -0.4, 0.2, 0.88)],
    ]
    apron = bar(-0.55 * a, 0.5 * a, -0.15 * b, 0.5 * b)
    layers = [Layer([field], tone(random, (122, 130, 88), 16), 0.85, 8), Layer([apron], tone(random, CONCRETE, 12), 1.0, 4)]
    layers += [
        Layer(runway, paved, 1.0, 4),
        Layer(taxi, paved * 1.1, 1.0, 4),
        Layer([bar(-0.97 * a, 0.97 * a, -0.72 * b + 24, -0.72 * b + 28)], LINE, 0.7),
    ]
    roof = tone(random, pick(random, "gray", "white", "gray", "blue"))
    layers += [Layer([bar(x * a, (x + 0.16) * a, 0.15 * b, 0.38 * b)], roof, 1.0, 4) for x in (-0.45, -0.15, 0.18)]
    plane = airplane(random)
    stands = [(x * a, 0.02 * b) for x in random.uniform(-0.5, 0.45, 8)]
    layers.append(Layer([turned(part, np.pi / 2) + stand for stand in stands for part in plane.outline], plane.layers[4].color))
    return Thing("airport", "gray", [field], layers, shows=("airplane",))


def train_station(random: Random) -> Thing:
    """A long roof over platforms; the tracks go on on both sides."""
    a, b = random.uniform(50, 180), random.uniform(12, 45)
    color = pick(random, "gray", "white", "blue", "gray", "red")
    paint = tone(random, color, 12)
    body = bar(-a, a, -b, b) if random.random() < 0.7 else regular(a, 40, b / a, 6)
    ribs = [bar(x - 0.5, x + 0.5, -b * 0.98, b * 0.98) for x in np.arange(-a + 3, a, random.uniform(7, 14))]
    strips = [bar(-a, a, y, y + b * 0.12) for y in np.linspace(-0.8, 0.7, 4) * b]
    layers = [
        Layer([body], paint, 1.0, 4),
        Layer(strips, paint * random.uniform(0.75, 1.2), 0.7),
        Layer(ribs, paint * 0.8, random.uniform(0, 0.7)),
    ]
    rails = lines(*[(-900, y, 900, y) for y in np.linspace(-0.85, 0.85, 8) * b], width=1.4)
    bed = bar(-900, 900, -0.9 * b, 0.9 * b)
    skirt = [Layer([bed], tone(random, (134, 122, 110), 10), 1.0, 9), Layer(rails, (84, 80, 78), 0.85)]
    return Thing("trainstation", color, [body], layers, height=random.uniform(8, 20), skirt=skirt)


def storage_tank(random: Random) -> Thing:
    """A round tank with a flat, domed or floating roof."""
    radius = random.uniform(4, 42)
    color = pick(random, "white", "white", "white", "gray", "brown", "green")
    paint = tone(random, color, 14)
    round_ = regular(radius, 56)
    form = pick(random, "dome", "floating", "plain")
    layers = [Layer([round_], paint * random.uniform(0.75, 1.0), grain=3), Layer([round_ * 0.95], paint, grain=3)]
    if form == "floating":
        layers.append(Layer([round_ * random.uniform(0.85, 0.93)], paint * random.uniform(0.6, 0.85), 0.9, 5))
    if form == "dome":
        layers += [
            Layer([round_ * share + np.array([-0.1, -0.1]) * radius * (1 - share)], np.minimum(paint * 1.06, 244), 0.25)
            for share in (0.8, 0.6, 0.4)
        ]
    angle = random.uniform(0, 6.28)
    layers.append(Layer([turned(bar(0, 0.95 * radius, -0.03 * radius, 0.03 * radius), angle)], paint * 0.75, random.uniform(0, 0.9)))
    layers.append(Layer([regular(0.06 * radius, 12)], paint * 0.7, random.uniform(0, 0.9)))
    skirt = []
    if random.random() < 0.4:
        wall = radius * random.uniform(1.35, 1.7)
        skirt = [Layer(frame(-wall, wall, -wall, wall, 0.05 * radius), tone(random, CONCRETE), 0.8)]
    return Thing("storage-tank", color, [round_], layers, height=random.uniform(0.3, 0.9) * min(radius, 22), skirt=skirt)


def chimney(random: Random) -> Thing:
    """A tall stack from above: its mouth, and its side where the view is not straight down."""
    radius = random.uniform(2, 8)
    color = pick(random, "gray", "white", "red", "brown")
    lean = random.uniform(0, 6) * radius * float(random.random() < 0.7)
    foot, top = regular(radius, 28), regular(radius * 0.7, 28) + (lean, 0)
    shaft = np.array([(0, -radius), (lean, -0.7 * radius), (lean, 0.7 * radius), (0, radius)])
    paint = tone(random, color, 12)
    layers = [Layer([foot, shaft], paint, 1.0, 3), Layer([shaft * (1, 0.35)], paint * 1.15, 0.6)]
    if color == "red" and lean > 2 * radius:
        bands = [bar(share * lean, (share + 0.14) * lean, -0.85 * radius, 0.85 * radius) for share in np.arange(0.2, 1.0, 0.3)]
        layers += [Layer([band], tone(random, "white"), 0.9) for band in bands]
    layers += [Layer([top], paint * 0.9), Layer([regular(radius * 0.5, 20) + (lean, 0)], (40, 40, 42), 0.95)]
    return Thing("chimney", color, [foot, shaft, top], layers, height=random.uniform(8, 25) * radius * 0.6)


def container_crane(random: Random) -> Thing:
    """A gantry crane: a long boom over a frame, cabin and counterweight."""
    a = random.uniform(35, 65)
    w = random.uniform(1.2, 2.6)
    color = pick(random, "blue", "red", "yellow", "white", "green", "orange", "gray")
    paint = tone(random, color, 12)
    leg = random.uniform(9, 15)
    booms = [bar(-a, a, y - w / 2, y + w / 2) for y in (-2.2 * w, 2.2 * w)]
    struts = [bar(x - 0.5, x + 0.5, -2.2 * w, 2.2 * w) for x in np.linspace(-a * 0.95, a * 0.95, 9)]
    legs = [bar(x - w * 0.7, x + w * 0.7, -leg, leg) for x in (-0.5 * a, -0.02 * a)]
    house = bar(-0.75 * a, -0.5 * a, -2.6 * w, 2.6 * w)
    body = bar(-a, a, -2.7 * w, 2.7 * w)
    layers = [Layer(legs, paint * 0.9), Layer([*booms, *struts], paint), Layer([house], tone(random, pick(random, "white", "gray", color)))]
    return Thing("container-crane", color, [body, *legs], layers, height=30.0, solid=False)


def windmill(random: Random) -> Thing:
    """A wind turbine: tower leaning out of the view's axis, nacelle and three blades."""
    a = random.uniform(25, 60)
    start = random.uniform(0, 2.1)
    lean = random.uniform(0.15, 1.3) * a
    blade = np.array([(0.02, 0.03), (0.15, 0.055), (1.0, 0.012), (1.0, -0.01), (0.02, -0.03)]) * a
    squeeze = random.uniform(0.35, 1.0)
    blades = [turned(blade, start + 2.0944 * k) * (squeeze, 1) + (lean, 0) for k in range(3)]
    tower = np.array([(0, -0.035), (1, -0.022), (1, 0.022), (0, 0.035)]) * (lean, a)
    hub = regular(0.05 * a, 14) + (lean, 0)
    paint = tone(random, "white", 10)
    pad = regular(0.2 * a, 20)
    layers = [Layer([tower], paint * 0.92), Layer(blades, paint), Layer([hub], paint * 0.95)]
    skirt = [Layer([pad], tone(random, (176, 164, 140)), 0.8, 6), Layer([bar(0, 6 * a, -3, 3)], tone(random, (172, 160, 138)), 0.8, 6)]
    return Thing("windmill", "white", [tower, *blades, hub], layers, height=1.0 * a, solid=False, skirt=skirt)


def helipad(random: Random) -> Thing:
    """A marked circle or square with its H."""
    a = random.uniform(6, 16)
    color = pick(random, "gray", "gray", "green", "red", "blue", "yellow")
    paint = tone(random, color, 14)
    body: Points = regular(a, 40) if random.random() < 0.65 else bar(-a, a, -a, a)
    white = tone(random, pick(random, "white", "white", "yellow"), 8)
    h = [bar(-0.34 * a, 0.34 * a, y * a - 0.06 * a, y * a + 0.06 * a) for y in (-0.26, 0.26)] + [
        bar(-0.06 * a, 0.06 * a, -0.26 * a, 0.26 * a)
    ]
    ring = (
        [arc(0, 0, a * 0.8, 0, 6.2832, a * 0.07, 36)]
        if len(body) > 4 or random.random() < 0.5
        else frame(-0.85 * a, 0.85 * a, -0.85 * a, 0.85 * a, 0.07 * a)
    )
    layers = [Layer([body], paint, 1.0, 4), Layer(ring, white, random.uniform(0.5, 1)), Layer(h, white, random.uniform(0.6, 1))]
    return Thing("helipad", color, [body], layers)


def building(random: Random) -> Thing:
    """A roof: gabled, flat or L-shaped. Not one of the 26 classes; clutter."""
    a = random.uniform(4, 9) if random.random() < 0.6 else random.uniform(9, 38)
    b = a * random.uniform(0.35, 0.95)
    color = pick(random, "gray", "white", "brown", "red", "gray", "blue")
    paint = tone(random, color, 18) * random.uniform(0.75, 1.0)
    body = bar(-a, a, -b, b)
    outline = [body]
    if random.random() < 0.35:
        outline.append(bar(-a, -a + 2 * b * random.uniform(0.5, 0.9), -b, b * random.uniform(1.5, 2.4)))
    layers = [Layer(outline, paint, 1.0, 5)]
    if random.random() < 0.5:
        layers.append(Layer([bar(-a, a, 0, b)], paint * random.uniform(0.65, 0.9), 1.0, 5))
    else:
        layers.append(Layer(frame(-a, a, -b, b, 0.06 * b), paint * random.uniform(0.7, 1.3), 0.8))
        for _ in range(int(random.integers(0, 6))):
            x, y = random.uniform(-0.8, 0.8) * a, random.uniform(-0.8, 0.8) * b
            layers.append(
                Layer(
                    [bar(x - 0.07 * a, x + 0.07 * a, y - 0.08 * b, y + 0.08 * b)], tone(random, pick(random, "white", "gray", "black")), 0.9
                )
            )
        if random.random() < 0.25:
            layers.append(Layer([bar(-0.5 * a, 0.3 * a, -0.3 * b, 0.3 * b)], GLASS, 0.7))
    return Thing("building", color, outline, layers, height=random.uniform(3, 6) if a < 9 else random.uniform(5, 22))
