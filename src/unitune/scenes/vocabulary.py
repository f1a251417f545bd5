"""The words of the scenes world: what exists in it and how people may call it.

The world is as large as the embedded models obey. Everything else is unknown to them.
"""

# noun -> (glyph of Noto Color Emoji, other words for it)
NOUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "dog": ("🐕", ("puppy", "hound")),
    "cat": ("🐈", ("kitten", "kitty")),
    "rabbit": ("🐇", ("bunny", "hare")),
    "lion": ("🦁", ()),
    "penguin": ("🐧", ()),
    "fish": ("🐟", ()),
    "frog": ("🐸", ("toad",)),
    "owl": ("🦉", ()),
    "car": ("🚗", ("automobile",)),
    "bus": ("🚌", ("coach",)),
    "train": ("🚂", ("locomotive",)),
    "rocket": ("🚀", ("spaceship",)),
    "sailboat": ("⛵", ("boat",)),
    "house": ("🏠", ("cottage",)),
    "castle": ("🏰", ("fortress",)),
    "tree": ("🌳", ("oak",)),
    "cactus": ("🌵", ()),
    "sunflower": ("🌻", ("flower",)),
    "mushroom": ("🍄", ("toadstool",)),
    "robot": ("🤖", ()),
    "ghost": ("👻", ()),
    "snowman": ("⛄", ()),
    "pumpkin": ("🎃", ("squash",)),
    "balloon": ("🎈", ()),
}

# place -> the phrases that put something there; the first one is the standard phrase
PLACES: dict[str, tuple[str, ...]] = {
    "beach": ("on a beach", "on the beach", "by the sea"),
    "forest": ("in a forest", "in the forest", "in the woods"),
    "city": ("in a city", "in the city", "in town"),
    "snow": ("in the snow", "in snow", "in the snowy mountains"),
    "desert": ("in a desert", "in the desert"),
    "meadow": ("in a meadow", "in the meadow", "on the grass"),
    "underwater": ("under water", "underwater", "under the sea"),
    "moon": ("on the moon", "in space"),
}

TIMES: dict[str, tuple[str, ...]] = {
    "day": ("", "", "", "by day"),
    "sunset": ("at sunset", "at dusk"),
    "night": ("at night", "by night"),
}

# style -> (before the objects, after everything); one of the two is used
STYLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plain": (("", "", "", "a picture of ", "a photo of "), ("",)),
    "pencil": (
        ("a pencil sketch of ", "a pencil drawing of "),
        (", pencil sketch", ", as a pencil sketch"),
    ),
    "pixel": (("a pixel art picture of ", "pixel art of "), (", pixel art", ", as pixel art")),
    "sepia": (("a sepia photo of ", "a sepia picture of "), (", sepia", ", in sepia")),
}

# colour -> RGB; objects of the styles in COLOURFUL may have one, the rest come as they are
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "green": (50, 165, 70),
    "blue": (50, 100, 225),
    "purple": (150, 65, 185),
}
COLOURFUL = ("plain", "pixel")

COUNTS = {2: "two", 3: "three"}

# phrases from the left object of a pair to the right one, and back
LEFT, RIGHT = ("left of", "to the left of"), ("right of", "to the right of")


def plural(noun: str) -> str:
    """Return the plural of a noun of this world."""
    irregular = {
        "fish": "fish", "bus": "buses", "cactus": "cacti", "snowman": "snowmen", "bunny": "bunnies",
        "puppy": "puppies", "kitty": "kitties", "coach": "coaches", "fortress": "fortresses",
        "squash": "squashes",
    }  # fmt: skip
    return irregular.get(noun, noun + "s")


def article(word: str) -> str:
    """Return "a" or "an" as the word after it needs it."""
    return "an" if word[0] in "aeiou" else "a"
