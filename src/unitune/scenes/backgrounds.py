"""Backgrounds: a place at a time of day, drawn at 256 px from a seed.

Only its details (skyline, trees, stars) vary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
SIDE = 256
SKY: dict[str, tuple[Colour, Colour]] = {
    "day": ((95, 175, 240), (210, 235, 252)),
    "sunset": ((95, 50, 125), (252, 150, 85)),
    "night": ((8, 10, 38), (38, 40, 92)),
}
MOON_SKY = {"day": (20, 20, 34), "sunset": (70, 30, 40), "night": (4, 4, 16)}
# Light on the ground, and a weaker one on objects, so that they stay readable.
TINT = {"day": (1.0, 1.0, 1.0), "sunset": (0.95, 0.72, 0.70), "night": (0.34, 0.38, 0.56)}
OBJECT_TINT = {"day": (1.0, 1.0, 1.0), "sunset": (1.0, 0.88, 0.84), "night": (0.72, 0.74, 0.90)}
WINDOW_LIGHT: Colour = (250, 226, 130)
FLOWERS: tuple[Colour, ...] = ((250, 240, 110), (250, 250, 250), (240, 130, 170))


@dataclass
class _Canvas:
    """A picture at one time of day; colours are tinted by that, and `rng` draws details."""

    time: str
    rng: np.random.Generator
    image: Image.Image = field(default_factory=lambda: Image.new("RGB", (SIDE, SIDE)))

    def __post_init__(self) -> None:
        self.draw = ImageDraw.Draw(self.image)

    def tinted(self, colour: Colour) -> Colour:
        r, g, b = (int(c * k) for c, k in zip(colour, TINT[self.time], strict=True))
        return r, g, b

    def between(self, a: Colour, b: Colour, u: float) -> Colour:
        mixed = [int(p + (q - p) * u) for p, q in zip(a, b, strict=True)]
        return self.tinted((mixed[0], mixed[1], mixed[2]))

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def numbers(self, count: int, *ranges: tuple[int, int]) -> Iterator[tuple[Any, ...]]:
        """Draw `count` numbers of each range; give one of each at a time."""
        return zip(*(self.rng.integers(low, high, count) for low, high in ranges), strict=True)

    def gradient(self, top: Colour, bottom: Colour, y_0: int, y_1: int) -> None:
        u = np.arange(y_1 - y_0)[:, None] / max(1, y_1 - y_0)
        column = (np.array(top) + (np.array(bottom) - np.array(top)) * u).astype(np.uint8)
        self.image.paste(Image.fromarray(column[:, None].repeat(SIDE, axis=1)), (0, y_0))

    def ground(self, far: Colour, near: Colour, y_0: int, y_1: int = SIDE) -> None:
        self.gradient(self.tinted(far), self.tinted(near), y_0, y_1)

    def sky(self, low: int, high: int) -> int:
        """Draw the sky down to a horizon between two heights; return it."""
        horizon = self.number(low, high)
        self.gradient(*SKY[self.time], 0, horizon)
        if self.time == "night":
            for x, y in self.numbers(28, (0, SIDE), (0, horizon)):
                self.draw.ellipse([x, y, x + 2, y + 2], fill=(255, 255, 225))
            x = self.number(24, 200)
            self.draw.ellipse([x, 18, x + 36, 54], fill=(248, 243, 205))
        if self.time == "sunset":
            x = self.number(40, 150)
            self.draw.ellipse([x, horizon - 46, x + 70, horizon + 24], fill=(255, 214, 120))
        return horizon

    def oval(self, box: list[int], colour: Colour) -> None:
        self.draw.ellipse(box, fill=self.tinted(colour))


def _beach(canvas: _Canvas) -> None:
    horizon = canvas.sky(104, 120)
    shore = horizon + canvas.number(36, 48)
    canvas.ground((240, 220, 165), (224, 192, 130), shore)
    canvas.ground((30, 105, 185), (80, 190, 215), horizon, shore)


def _forest(canvas: _Canvas) -> None:
    horizon = canvas.sky(140, 160)
    trees = [*canvas.numbers(14, (-30, SIDE), (44, 84))]
    for (x, side), shade in zip(trees, canvas.rng.random(14), strict=True):
        foot, top = horizon + 4, (x + side / 2, horizon - side * 1.55)
        green = canvas.between((22, 78, 44), (56, 122, 62), shade)
        canvas.draw.polygon([(x, foot), top, (x + side, foot)], fill=green)
    canvas.ground((66, 122, 58), (38, 84, 40), horizon)


def _city(canvas: _Canvas) -> None:
    horizon = canvas.sky(148, 164)
    for x, width, height in canvas.numbers(9, (-20, SIDE), (30, 54), (52, horizon - 16)):
        grey = canvas.between((84, 90, 112), (134, 138, 152), canvas.rng.random())
        canvas.draw.rectangle([x, horizon - height, x + width, horizon], fill=grey)
        for y in range(horizon - height + 7, horizon - 6, 14):
            for column in range(int(x) + 5, int(x + width) - 5, 10):
                if canvas.rng.random() < 0.5:
                    canvas.draw.rectangle([column, y, column + 4, y + 6], fill=WINDOW_LIGHT)
    canvas.ground((112, 112, 118), (78, 78, 84), horizon)


def _snow(canvas: _Canvas) -> None:
    horizon = canvas.sky(130, 146)
    rock, white = canvas.tinted((146, 160, 186)), canvas.tinted((250, 250, 255))
    for x, side in canvas.numbers(4, (-50, 200), (84, 150)):
        peak, line = (x + side / 2, horizon - side * 0.72), horizon - side * 0.49
        canvas.draw.polygon([(x, horizon), peak, (x + side, horizon)], fill=rock)
        canvas.draw.polygon([(x + side * 0.34, line), peak, (x + side * 0.66, line)], fill=white)
    canvas.ground((246, 250, 254), (216, 228, 244), horizon)


def _desert(canvas: _Canvas) -> None:
    horizon = canvas.sky(132, 146)
    for x, width, height in canvas.numbers(3, (-80, 190), (120, 210), (24, 52)):
        canvas.oval([x, horizon - height, x + width, horizon + height], (222, 160, 92))
    canvas.ground((236, 186, 112), (204, 140, 74), horizon)


def _meadow(canvas: _Canvas) -> None:
    horizon = canvas.sky(132, 148)
    x, width = canvas.number(-60, 120), canvas.number(160, 260)
    canvas.oval([x, horizon - 34, x + width, horizon + 60], (100, 176, 84))
    canvas.ground((128, 196, 92), (70, 144, 52), horizon)
    for x, y, kind in canvas.numbers(16, (0, SIDE), (horizon + 10, SIDE), (0, 3)):
        canvas.oval([x, y, x + 5, y + 5], FLOWERS[kind])


def _underwater(canvas: _Canvas) -> None:
    sand = canvas.number(196, 212)
    canvas.ground((64, 190, 214), (12, 72, 132), 0, sand)
    canvas.ground((190, 176, 128), (150, 134, 96), sand)
    weed, bubble = canvas.tinted((40, 150, 84)), canvas.tinted((206, 240, 250))
    for x, height in canvas.numbers(7, (0, SIDE), (40, 96)):
        points = [(x + 6 * np.sin(k * 1.3), sand + 8 - height * k / 6) for k in range(7)]
        canvas.draw.line(points, fill=weed, width=7)
    for x, y, r in canvas.numbers(14, (0, SIDE), (8, sand - 20), (3, 7)):
        canvas.draw.ellipse([x - r, y - r, x + r, y + r], outline=bubble, width=2)


def _moon(canvas: _Canvas) -> None:
    horizon = canvas.number(128, 146)
    canvas.gradient((4, 4, 10), MOON_SKY[canvas.time], 0, horizon)
    for x, y in canvas.numbers(40, (0, SIDE), (0, horizon)):
        canvas.draw.point([x, y], fill=(255, 255, 255))
    x, land = canvas.number(16, 180), (70, 160, 80)
    canvas.oval([x, 20, x + 56, 76], (60, 120, 220))  # the Earth
    canvas.oval([x + 10, 32, x + 34, 52], land)
    canvas.oval([x + 30, 50, x + 48, 66], land)
    canvas.ground((198, 198, 202), (150, 150, 156), horizon)
    crater, rim = canvas.tinted((118, 118, 126)), canvas.tinted((222, 222, 226))
    for x, y, r in canvas.numbers(9, (-10, SIDE), (horizon + 8, SIDE), (7, 20)):
        canvas.draw.ellipse([x - r, y - r // 3, x + r, y + r // 3], fill=crater, outline=rim)


DRAW: dict[str, Callable[[_Canvas], None]] = {
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
    """Draw a place at a time of day as a 256 px RGB picture.

    The same seed puts the same details there at any time of day.
    """
    canvas = _Canvas(time, np.random.default_rng(seed))
    DRAW[place](canvas)
    return canvas.image
