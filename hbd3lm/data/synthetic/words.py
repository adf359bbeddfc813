"""The nouns, names and number words of the embedded problems."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """Whom a sentence is about: a person, or two people together (``plural``)."""

    name: str
    he: str
    his: str
    him: str
    plural: bool = False


@dataclass(frozen=True, slots=True)
class Thing:
    """Something countable, what it is kept in, and how one comes by it (past, -s form, base)."""

    one: str
    many: str
    box: str
    boxes: str
    made: tuple[str, str, str]


def _people(names: str, he: str, his: str, him: str) -> list[Actor]:
    return [Actor(name, he, his, him) for name in names.split()]


PEOPLE: tuple[Actor, ...] = (
    *_people("Tom Ben Omar Diego Ravi Liam Noah Felix Minh Peter Jack Ivan", "he", "his", "him"),
    *_people("Sam Leo Ahmed Kenji David Oscar Hugo Marco Paul Dylan", "he", "his", "him"),
    *_people("Mia Anna Lena Priya Zoe Ruth Clara Mei Nora Emma Julia", "she", "her", "her"),
    *_people("Lan Sofia Maya Grace Rosa Hana Alice Fatima Olga Lily", "she", "her", "her"),
)


def _things(text: str, made: str) -> list[Thing]:
    past, third, base = made.split()
    return [Thing(*row.split("/"), made=(past, third, base)) for row in text.split()]


THINGS: tuple[Thing, ...] = (
    *_things(
        "apple/apples/basket/baskets peach/peaches/crate/crates lemon/lemons/bag/bags "
        "tomato/tomatoes/crate/crates pumpkin/pumpkins/cart/carts rose/roses/bunch/bunches "
        "strawberry/strawberries/bowl/bowls tulip/tulips/bunch/bunches",
        "picked picks pick",
    ),
    *_things(
        "cookie/cookies/tray/trays cupcake/cupcakes/box/boxes muffin/muffins/tin/tins "
        "pie/pies/box/boxes bagel/bagels/bag/bags pretzel/pretzels/tray/trays",
        "baked bakes bake",
    ),
    *_things(
        "bracelet/bracelets/box/boxes candle/candles/crate/crates mug/mugs/crate/crates "
        "kite/kites/bag/bags birdhouse/birdhouses/crate/crates scarf/scarves/drawer/drawers "
        "necklace/necklaces/case/cases",
        "made makes make",
    ),
    *_things(
        "marble/marbles/jar/jars sticker/stickers/album/albums seashell/seashells/bucket/buckets "
        "stamp/stamps/album/albums coin/coins/jar/jars postcard/postcards/box/boxes "
        "button/buttons/tin/tins bead/beads/jar/jars",
        "collected collects collect",
    ),
    *_things(
        "pencil/pencils/pack/packs notebook/notebooks/stack/stacks book/books/box/boxes "
        "balloon/balloons/pack/packs egg/eggs/carton/cartons crayon/crayons/box/boxes "
        "puzzle/puzzles/box/boxes",
        "bought buys buy",
    ),
)

GIFT_BAG = Thing("gift bag", "gift bags", "crate", "crates", ("packed", "packs", "pack"))

SMALL_BUYS = (
    "a book",
    "lunch",
    "a hat",
    "a movie ticket",
    "a birthday present",
    "art supplies",
    "a board game",
    "a bus pass",
    "groceries",
    "a plant",
)
BIG_BUYS = (
    "a bicycle",
    "a guitar",
    "a tablet",
    "a tent",
    "a camera",
    "a desk",
    "a skateboard",
    "a telescope",
    "a winter coat",
    "a sewing machine",
)
CHORES = (
    "mowing lawns",
    "walking dogs",
    "washing cars",
    "babysitting",
    "raking leaves",
    "painting a fence",
    "watering plants",
    "tutoring",
)
RECEIVERS = ("friends", "cousins", "neighbors", "classmates")
CHILDREN = ("children", "nephews", "nieces", "grandchildren")

_SMALL = (
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
NUMBER_WORDS = dict(enumerate(_SMALL, start=2))
TIMES = {2: ("twice",), 3: ("three times", "3 times"), 4: ("four times", "4 times")}
FRACTIONS = {
    (1, 2): "half",
    (1, 3): "a third",
    (2, 3): "two thirds",
    (1, 4): "a quarter",
    (3, 4): "three quarters",
    (1, 5): "a fifth",
    (2, 5): "two fifths",
}
PARTS = {2: "half", 3: "one third", 4: "one fourth"}
