"""Backgrounds: a place at a time of day, drawn at 256 px from a seed; only its details (skyline, trees, stars) vary."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Rng = np.random.Generator
SIDE = 256

SKY: dict[str, tuple[Colour, Colour]] = {
    "day": ((95, 175, 240), (210, 235, 252)),
    "sunset": ((95, 50, 125), (252, 150, 85)),
    "night": ((8, 10, 38), (38, 40, 92)),
}
TINT: dict[str, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "sunset": (0.95, 0.72, 0.70),
    "night": (0.34, 0.38, 0.56),
}  # light on the ground
OBJECT_TINT = {
    "day": (1.0, 1.0, 1.0),
    "sunset": (1.0, 0.88, 0.84),
    "night": (0.72, 0.74, 0.90),
}  # weaker, so that objects stay readable
WINDOW_LIGHT: Colour = (250, 226, 130)


def _mix(a: Colour, b: Colour, u: float) -> Colour:
    return tuple(int(p + (q - p) * u) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def _tinted(colour: Colour, time: str) -> Colour:
    return tuple(int(c * k) for c, k in zip(colour, TINT[time], strict=True))  # type: ignore[return-value]


def _gradient(canvas: Image.Image, top: Colour, bottom: Colour, y_0: int, y_1: int) -> None:
    u = np.arange(y_1 - y_0)[:, None] / max(1, y_1 - y_0)
    column = (np.array(top) + (np.array(bottom) - np.array(top)) * u).astype(np.uint8)
    canvas.paste(
        Image.fromarray(column[:, None]).resize((SIDE, y_1 - y_0), Image.Resampling.NEAREST),
        (0, y_0),
    )


def _sky(canvas: Image.Image, time: str, horizon: int, rng: Rng) -> None:
    draw = ImageDraw.Draw(canvas)
    _gradient(canvas, *SKY[time], 0, horizon)
    if time == "night":
        for x, y in zip(rng.integers(0, SIDE, 28), rng.integers(0, horizon, 28), strict=True):
            draw.ellipse([x, y, x + 2, y + 2], fill=(255, 255, 225))
        x = int(rng.integers(24, 200))
        draw.ellipse([x, 18, x + 36, 54], fill=(248, 243, 205))
    if time == "sunset":
        x = int(rng.integers(40, 150))
        draw.ellipse([x, horizon - 46, x + 70, horizon + 24], fill=(255, 214, 120))


def _ground(canvas: Image.Image, time: str, near: Colour, far: Colour, horizon: int) -> None:
    _gradient(canvas, _tinted(far, time), _tinted(near, time), horizon, SIDE)


def _beach(canvas: Image.Image, time: str, rng: Rng) -> None:
    horizon = int(rng.integers(104, 120))
    _sky(canvas, time, horizon, rng)
    shore = horizon + int(rng.integers(36, 48))
    _ground(canvas, time, (224, 192, 130), (240, 220, 165), shore)
    _gradient(canvas, _tinted((30, 105, 185), time), _tinted((80, 190, 215), time), horizon, shore)


def _forest(canvas: Image.Image, time: str, rng: Rng) -> None:
    draw = ImageDraw.Draw(canvas)
    horizon = int(rng.integers(140, 160))
    _sky(canvas, time, horizon, rng)
    for x, side, shade in zip(
        rng.integers(-30, SIDE, 14), rng.integers(44, 84, 14), rng.random(14), strict=True
    ):
        green = _tinted(_mix((22, 78, 44), (56, 122, 62), shade), time)
        draw.polygon(
            [(x, horizon + 4), (x + side / 2, horizon - side * 1.55), (x + side, horizon + 4)],
            fill=green,
        )
    _ground(canvas, time, (38, 84, 40), (66, 122, 58), horizon)


def _city(canvas: Image.Image, time: str, rng: Rng) -> None:
    draw = ImageDraw.Draw(canvas)
    horizon = int(rng.integers(148, 164))
    _sky(canvas, time, horizon, rng)
    for x, width, height in zip(
        rng.integers(-20, SIDE, 9),
        rng.integers(30, 54, 9),
        rng.integers(52, horizon - 16, 9),
        strict=True,
    ):
        draw.rectangle(
            [x, horizon - height, x + width, horizon],
            fill=_tinted(_mix((84, 90, 112), (134, 138, 152), rng.random()), time),
        )
        for y in range(horizon - height + 7, horizon - 6, 14):
            for column in range(int(x) + 5, int(x + width) - 5, 10):
                if rng.random() < 0.5:
                    draw.rectangle([column, y, column + 4, y + 6], fill=WINDOW_LIGHT)
    _ground(canvas, time, (78, 78, 84), (112, 112, 118), horizon)


def _snow(canvas: Image.Image, time: str, rng: Rng) -> None:
    draw = ImageDraw.Draw(canvas)
    horizon = int(rng.integers(130, 146))
    _sky(canvas, time, horizon, rng)
    for x, side in zip(rng.integers(-50, 200, 4), rng.integers(84, 150, 4), strict=True):
        peak = (x + side / 2, horizon - side * 0.72)
        draw.polygon([(x, horizon), peak, (x + side, horizon)], fill=_tinted((146, 160, 186), time))
        draw.polygon(
            [
                (x + side * 0.34, horizon - side * 0.49),
                peak,
                (x + side * 0.66, horizon - side * 0.49),
            ],
            fill=_tinted((250, 250, 255), time),
        )
    _ground(canvas, time, (216, 228, 244), (246, 250, 254), horizon)


def _desert(canvas: Image.Image, time: str, rng: Rng) -> None:
    draw = ImageDraw.Draw(canvas)
    horizon = int(rng.integers(132, 146))
    _sky(canvas, time, horizon, rng)
    for x, width, height in zip(
        rng.integers(-80, 190, 3), rng.integers(120, 210, 3), rng.integers(24, 52, 3), strict=True
    ):
        draw.ellipse(
            [x, horizon - height, x + width, horizon + height], fill=_tinted((222, 160, 92), time)
        )
    _ground(canvas, time, (204, 140, 74), (236, 186, 112), horizon)


def _meadow(canvas: Image.Image, time: str, rng: Rng) -> None:
    draw = ImageDraw.Draw(canvas)
    horizon = int(rng.integers(132, 148))
    _sky(canvas, time, horizon, rng)
    x, width = int(rng.integers(-60, 120)), int(rng.integers(160, 260))
    draw.ellipse([x, horizon - 34, x + width, horizon + 60], fill=_tinted((100, 176, 84), time))
    _ground(canvas, time, (70, 144, 52), (128, 196, 92), horizon)
    for x, y, kind in zip(
        rng.integers(0, SIDE, 16),
        rng.integers(horizon + 10, SIDE, 16),
        rng.integers(0, 3, 16),
        strict=True,
    ):
        draw.ellipse(
            [x, y, x + 5, y + 5],
            fill=_tinted(((250, 240, 110), (250, 250, 250), (240, 130, 170))[kind], time),
        )


def _underwater(canvas: Image.Image, time: str, rng: Rng) -> None:
    draw = ImageDraw.Draw(canvas)
    sand = int(rng.integers(196, 212))
    _gradient(canvas, _tinted((64, 190, 214), time), _tinted((12, 72, 132), time), 0, sand)
    _gradient(canvas, _tinted((190, 176, 128), time), _tinted((150, 134, 96), time), sand, SIDE)
    for x, height in zip(rng.integers(0, SIDE, 7), rng.integers(40, 96, 7), strict=True):
        points = [(x + 6 * np.sin(k * 1.3), sand + 8 - height * k / 6) for k in range(7)]
        draw.line(points, fill=_tinted((40, 150, 84), time), width=7)
    for x, y, r in zip(
        rng.integers(0, SIDE, 14),
        rng.integers(8, sand - 20, 14),
        rng.integers(3, 7, 14),
        strict=True,
    ):
        draw.ellipse([x - r, y - r, x + r, y + r], outline=_tinted((206, 240, 250), time), width=2)


def _moon(canvas: Image.Image, time: str, rng: Rng) -> None:
    draw = ImageDraw.Draw(canvas)
    horizon = int(rng.integers(128, 146))
    _gradient(
        canvas,
        (4, 4, 10),
        {"day": (20, 20, 34), "sunset": (70, 30, 40), "night": (4, 4, 16)}[time],
        0,
        horizon,
    )
    for x, y in zip(rng.integers(0, SIDE, 40), rng.integers(0, horizon, 40), strict=True):
        draw.point([x, y], fill=(255, 255, 255))
    x = int(rng.integers(16, 180))
    draw.ellipse([x, 20, x + 56, 76], fill=_tinted((60, 120, 220), time))  # the Earth
    draw.ellipse([x + 10, 32, x + 34, 52], fill=_tinted((70, 160, 80), time))
    draw.ellipse([x + 30, 50, x + 48, 66], fill=_tinted((70, 160, 80), time))
    _ground(canvas, time, (150, 150, 156), (198, 198, 202), horizon)
    for x, y, r in zip(
        rng.integers(-10, SIDE, 9),
        rng.integers(horizon + 8, SIDE, 9),
        rng.integers(7, 20, 9),
        strict=True,
    ):
        draw.ellipse(
            [x - r, y - r // 3, x + r, y + r // 3],
            fill=_tinted((118, 118, 126), time),
            outline=_tinted((222, 222, 226), time),
        )


DRAW: dict[str, Callable[[Image.Image, str, Rng], None]] = {
    "beach": _beach,
    "forest": _forest,
    "city": _city,
    "snow": _snow,
    "desert": _desert,
    "meadow": _meadow,
    "underwater": _underwater,
    "moon": _moon,
}


def background(place: str, time: str, seed: int) -> Image.Image:
    """Draw a place at a time of day as a 256 px RGB picture; the same seed puts the same details there at any time of day."""
    canvas = Image.new("RGB", (SIDE, SIDE))
    DRAW[place](canvas, time, np.random.default_rng(seed))
    return canvas
