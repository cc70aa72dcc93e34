"""Aircraft, helicopters, ships and vehicles from above."""

from __future__ import annotations

import numpy as np

from risbench.scenes.canvas import Points, Random, bar, regular, turned
from risbench.scenes.thing import GLASS, Layer, Thing, pick, tone


def mirrored(half: Points) -> Points:
    """Return a closed outline from its upper half, front to back."""
    return np.vstack([half, (half * (1, -1))[::-1]])


def airplane(random: Random) -> Thing:
    """An airliner, a propeller aircraft or a fighter."""
    form = pick(random, "liner", "liner", "liner", "light", "fighter")
    body = random.uniform(0.038, 0.06) if form != "light" else random.uniform(0.05, 0.075)
    if form == "liner":
        length, span = random.uniform(22, 72), random.uniform(0.86, 1.1)
        root, chord, sweep, tip = random.uniform(0.1, 0.3), random.uniform(0.24, 0.34), random.uniform(0.3, 0.6), random.uniform(0.05, 0.1)
        tail, tail_span, tail_sweep = random.uniform(0.16, 0.24), random.uniform(0.32, 0.42), random.uniform(0.12, 0.22)
    elif form == "light":
        length, span = random.uniform(7, 26), random.uniform(1.05, 1.5)
        root, chord, sweep, tip = (
            random.uniform(0.25, 0.45),
            random.uniform(0.2, 0.32),
            random.uniform(-0.03, 0.1),
            random.uniform(0.1, 0.2),
        )
        tail, tail_span, tail_sweep = random.uniform(0.14, 0.2), random.uniform(0.3, 0.42), random.uniform(0.0, 0.08)
    else:
        length, span = random.uniform(13, 22), random.uniform(0.6, 0.85)
        root, chord, sweep, tip = random.uniform(0.1, 0.3), random.uniform(0.6, 0.8), random.uniform(0.45, 0.7), random.uniform(0.08, 0.2)
        tail, tail_span, tail_sweep = random.uniform(0.16, 0.22), random.uniform(0.4, 0.5), random.uniform(0.12, 0.25)
    half = length / 2

    def at(*values: tuple[float, float]) -> Points:
        return np.array(values) * half

    nose = [(np.cos(t) * 0.16 + 0.84, np.sin(t) * body * 1.9) for t in np.linspace(0, np.pi / 2, 6)]
    fuselage = mirrored(at(*nose, (-0.55, body * 1.9), (-0.8, body * 1.2), (-1.0, body * 0.35)))
    half_wing = at((root, 0.0), (root - sweep, span), (root - sweep - tip, span), (root - chord - 0.02, body * 2.2), (root - chord, 0.0))
    wing = mirrored(half_wing)
    fin_x = -0.72 if form != "fighter" else -0.7
    stabiliser = mirrored(
        at((fin_x, 0.0), (fin_x - tail_sweep, tail_span), (fin_x - tail_sweep - tail * 0.4, tail_span), (fin_x - tail, 0.0))
    )
    outline = [fuselage, wing, stabiliser]
    engines: list[Points] = []
    if form == "liner":
        for share in [random.uniform(0.3, 0.4)] + ([random.uniform(0.6, 0.68)] if random.random() < 0.25 else []):
            x = root - sweep * share + 0.05
            engines += [regular(0.075 * half, 12, 0.42, 3.0) + (x * half, sign * share * span * half) for sign in (-1, 1)]
    color = pick(random, "white", "white", "white", "gray", "gray", "green" if form == "fighter" else "white")
    paint = tone(random, color, 12)
    stripe = tone(random, pick(random, "red", "blue", "gray", "white", "black"), 10)
    layers = [
        Layer(engines, paint * random.uniform(0.6, 0.9)) if engines else Layer([], paint),
        # the wings face the sun at other angles than the body: either may be the darker, down to the apron's own grey
        Layer([half_wing], paint * random.uniform(0.5, 1.05)),
        Layer([half_wing * (1, -1)], paint * random.uniform(0.5, 1.05)),
        Layer([stabiliser], paint * random.uniform(0.6, 1.05)),
        Layer([fuselage], paint),
        Layer(
            [bar(-0.85 * half, 0.85 * half, body * 0.9 * half, body * 1.9 * half) * (1, 1 if random.random() < 0.5 else -1)],
            paint * random.uniform(0.55, 0.9),
            random.uniform(0, 0.8),
        ),
        Layer([bar(-1.0 * half, -0.7 * half, -0.016 * half, 0.016 * half)], stripe, random.uniform(0.3, 1.0)),
        Layer([bar(0.88 * half, 0.93 * half, -body * half, body * half)], GLASS, 0.8),
    ]
    return Thing("airplane", color, [*outline, *engines], layers, height=0.12 * length, solid=False)


def helicopter(random: Random) -> Thing:
    """A body, a tail boom and a rotor."""
    length = random.uniform(9, 17)
    half = length / 2
    cabin = regular(0.42 * half, 24, random.uniform(0.4, 0.55), 2.4) + (0.35 * half, 0)
    boom = np.array([(0.1, 0.09), (-1.0, 0.035), (-1.0, -0.035), (0.1, -0.09)]) * half
    fin = bar(-1.0 * half, -0.88 * half, -0.2 * half, 0.2 * half)
    color = pick(random, "white", "gray", "red", "green", "blue", "black", "yellow")
    paint = tone(random, color)
    start, count = random.uniform(0, np.pi), int(random.integers(2, 6))
    blades = [
        turned(bar(0, 0.95 * half, -0.03 * half, 0.03 * half), start + 2 * np.pi * k / count) + (0.35 * half, 0) for k in range(count)
    ]
    layers = [
        Layer([boom, fin], paint * 0.9),
        Layer([cabin], paint),
        Layer([regular(0.16 * half, 16, 1.3) + (0.6 * half, 0)], GLASS, 0.85),
        Layer(blades, (60, 62, 66), random.uniform(0.4, 0.9)),
    ]
    return Thing("helicopter", color, [cabin, boom, fin], layers, height=3.0, solid=False)


def ship(random: Random) -> Thing:
    """A boat, a cargo ship, a tanker, a barge or a grey ship."""
    form = pick(random, "boat", "boat", "cargo", "tanker", "barge", "grey")
    length = {"boat": (6, 28), "cargo": (70, 300), "tanker": (90, 280), "barge": (30, 90), "grey": (60, 180)}[form]
    a = float(random.uniform(*length)) / 2
    b = a * (random.uniform(0.26, 0.38) if form == "boat" else random.uniform(0.11, 0.2))
    bow = random.uniform(0.2, 0.6) if form != "barge" else 0.06
    t = np.linspace(0, 1, 7)
    point = random.uniform(1.5, 2.6)
    front = np.stack([1 - bow + bow * t, 1 - t**point], axis=1)
    stern = random.uniform(0.6, 1.0)
    upper = np.vstack([front[::-1], [(-0.85, 1.0), (-1.0, stern)]]) * (a, b)
    hull = mirrored(upper)
    color = {"boat": pick(random, "white", "white", "gray", "blue", "red"), "grey": "gray"}.get(
        form, pick(random, "red", "gray", "blue", "brown", "black", "green", "orange")
    )
    paint = tone(random, color, 12)
    deck = hull * (0.94, 0.84)
    layers = [Layer([hull], paint), Layer([deck], tone(random, color, 12) * random.uniform(0.85, 1.2), random.uniform(0.2, 0.9))]
    if form == "boat":
        x = random.uniform(-0.2, 0.3)
        layers += [
            Layer([regular(0.36 * a, 16, b / a * 1.6, 3) + (x * a, 0)], tone(random, pick(random, "white", "gray", "blue", "brown")), 0.9),
            Layer([bar((x + 0.12) * a, (x + 0.24) * a, -0.5 * b, 0.5 * b)], GLASS, random.uniform(0, 0.9)),
            Layer(
                [bar(-0.9 * a, -0.55 * a, -0.6 * b, 0.6 * b)], tone(random, pick(random, "brown", "gray", "white")), random.uniform(0, 0.8)
            ),
        ]
    elif form == "cargo":
        for row in np.arange(-0.55, 0.62, random.uniform(0.09, 0.16)):
            if random.random() < 0.85:
                for y in (-0.42, 0.42):
                    box = bar((row - 0.035) * a, (row + 0.035) * a, (y - 0.38) * b, (y + 0.38) * b)
                    layers.append(
                        Layer([box], tone(random, pick(random, "red", "blue", "green", "white", "orange", "brown", "gray")), 0.95)
                    )
    elif form == "tanker":
        layers.append(Layer([bar(-0.6 * a, 0.75 * a, -0.08 * b, 0.08 * b)], tone(random, "gray"), 0.8))
        layers.append(Layer([bar(x * a, (x + 0.02) * a, -0.7 * b, 0.7 * b) for x in (-0.3, 0.0, 0.3)], tone(random, "white"), 0.6))
    elif form == "grey":
        layers.append(Layer([bar(-0.45 * a, 0.3 * a, -0.5 * b, 0.5 * b)], paint * 1.15))
        layers.append(Layer([bar(-0.9 * a, -0.6 * a, -0.7 * b, 0.7 * b)], paint * 0.8))
    else:
        layers.append(Layer([deck * (0.96, 0.8)], tone(random, pick(random, "brown", "black", "gray")), 0.9, grain=8))
    if form in ("cargo", "tanker"):
        x = random.uniform(-0.85, -0.75)
        layers.append(Layer([bar(x * a, (x + 0.16) * a, -0.75 * b, 0.75 * b)], tone(random, "white", 6)))
    skirt: list[Layer] = []
    if random.random() < 0.3:
        far = random.uniform(1.5, 4)
        wake = np.array([(-0.9, 0.8), (-0.9 - far, 2.6), (-0.9 - far, -2.6), (-0.9, -0.8)]) * (a, b)
        skirt = [Layer([wake], (196, 206, 208), random.uniform(0.1, 0.35), 22)]
    return Thing("ship", color, [hull], layers, height=0.0 if form == "barge" else min(0.06 * a + 1, 12), skirt=skirt)


def vehicle(random: Random) -> Thing:
    """A car, a van, a lorry or a bus."""
    form = pick(random, "car", "car", "car", "car", "van", "lorry", "bus")
    length, width, height = {
        "car": (random.uniform(3.6, 5.1), random.uniform(1.65, 1.95), 1.5),
        "van": (random.uniform(5.0, 7.2), random.uniform(1.9, 2.2), 2.4),
        "lorry": (random.uniform(8.0, 17.0), random.uniform(2.4, 2.6), 3.7),
        "bus": (random.uniform(9.0, 14.0), random.uniform(2.45, 2.6), 3.2),
    }[form]
    a, b = length / 2, width / 2
    body = regular(a, 32, b / a, random.uniform(4.0, 7.0) if form == "car" else 12)
    color = pick(random, "white", "white", "gray", "gray", "black", "black", "red", "blue", "yellow", "green", "brown", "orange")
    paint = tone(random, color, 14)
    layers = [Layer([body], paint, grain=2)]
    if random.random() < 0.5:
        side = 1 if random.random() < 0.5 else -1
        layers.append(Layer([body * (0.97, 0.3) + (0, 0.66 * b * side)], paint * random.uniform(0.4, 0.85), random.uniform(0.4, 0.9)))
    if form == "car":
        shift = random.uniform(-0.08, 0.08)
        # glass mirrors the sky as often as it shows the inside
        glass = tone(random, GLASS if random.random() < 0.65 else (176, 190, 204), 12)
        layers += [
            Layer([regular(0.46 * a, 20, b / a * 1.65, 5) + ((shift - 0.12) * a, 0)], glass, random.uniform(0.5, 0.95)),
            Layer([regular(0.3 * a, 16, b / a * 2.2, 6) + ((shift - 0.12) * a, 0)], paint * random.uniform(0.9, 1.12), grain=2),
        ]
    elif form == "van":
        layers += [Layer([bar(0.5 * a, 0.68 * a, -0.8 * b, 0.8 * b)], GLASS, 0.9), Layer([body * (0.9, 0.75)], paint * 1.05, 0.5)]
    elif form == "lorry":
        cab = tone(random, pick(random, "white", "red", "blue", "yellow", "gray"))
        layers += [
            Layer([bar(0.7 * a, a, -0.95 * b, 0.95 * b)], cab),
            Layer([bar(0.64 * a, 0.7 * a, -0.8 * b, 0.8 * b)], (34, 34, 36), 0.9),
            Layer([bar(0.86 * a, 0.94 * a, -0.8 * b, 0.8 * b)], GLASS, 0.8),
        ]
    else:
        layers += [
            Layer(
                [bar(x * a, (x + 0.12) * a, -0.4 * b, 0.4 * b) for x in (-0.6, -0.1, 0.4)], tone(random, "gray"), random.uniform(0.2, 0.9)
            ),
            Layer([bar(0.9 * a, 0.98 * a, -0.85 * b, 0.85 * b)], GLASS, 0.8),
        ]
    if form == "car":
        layers.append(Layer([bar(0.55 * a, 0.92 * a, -0.7 * b, 0.7 * b)], paint * random.uniform(1.0, 1.2), random.uniform(0.0, 0.6)))
    return Thing("vehicle", color, [body], layers, height=height)
