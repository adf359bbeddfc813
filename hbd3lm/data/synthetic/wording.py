"""The story in words: question, worked solution and sub-questions."""

from __future__ import annotations

import re

from hbd3lm.data.synthetic import words
from hbd3lm.data.synthetic.chance import Chance
from hbd3lm.data.synthetic.events import Event, Number
from hbd3lm.data.synthetic.story import Calculation, Scene, Story
from hbd3lm.data.synthetic.words import Actor, Thing

_FORMS = re.compile(r"\[([^|\]]*)\|([^|\]]*)\|([^|\]]*)\]")
_SENTENCE_START = re.compile(r"(?:^|(?<=[.?!] ))[a-z]")


def write_story(chance: Chance, story: Story) -> tuple[str, str, tuple[str, ...]]:
    """Question, solution (with annotations and the ``####`` line) and one sub-question a step."""
    return _Writer(chance).write(story)


def number_text(number: Number) -> str:
    """``24`` or ``2.5``: no trailing zeros. Only whole cents occur."""
    if number.denominator == 1:
        return str(number.numerator)
    return f"{float(number):.2f}".rstrip("0")


def _dollars(number: Number) -> str:
    return f"${number}" if number.denominator == 1 else f"${float(number):.2f}"


class _Writer:
    """The choices that hold for a whole problem, and who has been mentioned so far."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.past = chance.yes(0.5)
        self.spell_small_numbers = chance.yes(0.3)
        self.tight_formulas = chance.yes(0.7)
        self.connectives = ["then ", "after that, ", "later, ", "the next day, ", "", "", ""]
        self.events_told = 0
        self.people: list[Actor] = []
        self.actor = self.new_person()
        self.rival: Actor | None = None
        self.thing = chance.pick(words.THINGS)

    def new_person(self) -> Actor:
        while (person := self.chance.pick(words.PEOPLE)) in self.people:
            pass
        self.people.append(person)
        return person

    def connective(self) -> str:
        return self.connectives.pop(self.chance.int(0, len(self.connectives) - 1))

    def write(self, story: Story) -> tuple[str, str, tuple[str, ...]]:
        told: list[str] = []
        asks: list[str] = []
        cast: list[tuple[Scene, _Words]] = []
        for index, scene in enumerate(story):
            event, final = scene.event, index == len(story) - 1
            names = _Words(self, scene, opening=index == 0)
            # "They put it all together" goes without saying in "how much do they have together?".
            if not (final and event.actor == "both"):
                told.append(self.fill(event.tell, names))
            self.events_told += 1
            cast.append((scene, names))
            names.voice = "names"
            asks += [self.fill(ask, names) for ask in event.asks]
            if final:
                names.voice = "text"
                told.append(self.fill(event.asks[-1], names))
            self._move_on(event, names)
        question = " ".join(sentence for sentence in told if sentence)

        lines: list[str] = []
        speaker = None
        for scene, names in cast:
            for solve in scene.event.solves:
                names.voice = "text" if names.actor is speaker else "names"
                lines.append(self.fill(solve, names))
                speaker = names.actor
        answer = number_text(story[-1].calculations[-1].result)
        return question, "\n".join([*lines, f"#### {answer}"]), tuple(asks)

    def fill(self, texts: tuple[str, ...], names: _Words) -> str:
        """One of ``texts`` with its names, in the tense and number of the problem."""
        form = 1 if self.past else 3 if names.actor.plural else 2
        text = self.chance.pick(texts).format_map(names)
        text = _FORMS.sub(lambda match: match[form], text)
        return _SENTENCE_START.sub(lambda match: match[0].upper(), text)

    def pronoun_is_clear(self, actor: Actor) -> bool:
        return sum(person.he == actor.he for person in self.people) <= 1

    def _move_on(self, event: Event, names: _Words) -> None:
        """Who and what the next event is about."""
        if event.rival:
            self.rival = names["_B"]
        elif event.actor == "other":
            self.rival, self.actor = self.actor, names["_B"]
        elif event.actor == "both":
            assert self.rival is not None
            both = f"{self.rival.name} and {self.actor.name}"
            self.actor, self.rival = Actor(both, "they", "their", "them", plural=True), None
        self.thing = names["_thing"] if event.thing != "bag" else words.GIFT_BAG


class _Words(dict):
    """What the names in an event's templates stand for; choices are made once and kept."""

    def __init__(self, writer: _Writer, scene: Scene, opening: bool) -> None:
        super().__init__()
        self.writer, self.scene, self.opening = writer, scene, opening
        self.actor, self.rival = writer.actor, writer.rival
        self.voice = "text"  # "names": a sentence that stands alone, so no pronoun for a subject

    def __missing__(self, key: str) -> object:
        spoken = self._spoken(key)
        if spoken is not None:
            return spoken
        self[key] = value = self._chosen(key)
        return value

    def _spoken(self, key: str) -> str | None:
        """What is chosen anew each time: pronoun or name, digits or words."""
        writer, actor = self.writer, self.actor
        if key in ("s", "him", "whose"):
            often = 1.0 if self.opening or key != "s" else 0.65
            pronoun = (
                self.voice == "text" and writer.pronoun_is_clear(actor) and writer.chance.yes(often)
            )
            if key == "whose":
                return actor.his if pronoun else f"{actor.name}'s"
            return {"s": actor.he, "him": actor.him}[key] if pronoun else actor.name
        if key == "then":
            return writer.connective()
        if key == "now":  # right after the opening nothing has changed yet
            return "now " if writer.events_told > 1 else ""
        if key in self.scene.numbers:
            number = self.scene.numbers[key]
            if self.voice == "text" and writer.spell_small_numbers:
                return words.NUMBER_WORDS.get(number, str(number))
            return str(number)
        return None

    def _chosen(self, key: str) -> object:
        chance, numbers, writer = self.writer.chance, self.scene.numbers, self.writer
        thing: Thing = self["_thing"] if key != "_thing" else writer.thing
        if key == "_thing":
            if self.scene.event.thing == "new":
                return _another(chance, words.THINGS, thing)
            return thing
        if key == "_B":
            return writer.new_person()
        if key[0] == "$":
            return _dollars(numbers[key[1:]])
        if key[0] == "%":
            return f"{numbers[key[1:]]}%"
        if key[1:].isdigit():
            calculation = self.scene.calculations[int(key[1:]) - 1]
            return self._formula(calculation, "$" if key[0] == "d" else "")
        if key in _SIMPLE:
            return chance.pick(_SIMPLE[key])
        match key:
            case "A":
                return self.actor.name
            case "his":
                return self.actor.his
            case "B":
                return self["_B"].name
            case "Bhis":
                return self["_B"].his
            case "U":
                assert self.rival is not None
                return self.rival.name
            case "thing":
                return thing.one
            case "things":
                return thing.many
            case "box":
                return thing.box
            case "boxes":
                return thing.boxes
            case "made":
                return f"[{'|'.join(thing.made)}]"
            case "make":
                return thing.made[2]
            case "frac":
                return words.FRACTIONS[numbers["n"], numbers["d"]]
            case "times":
                return chance.pick(words.TIMES[numbers["k"]])
            case "part":
                return words.PARTS[numbers["d"]]
        raise KeyError(key)

    def _formula(self, calculation: Calculation, unit: str) -> str:
        """``12*8=$<<12*8=96>>96``, or with spaces outside the annotation."""
        formula = number_text(calculation.operands[0])
        for operator, operand in zip(calculation.operators, calculation.operands[1:]):
            formula += operator + number_text(operand)
        result = number_text(calculation.result)
        shown = formula + "="
        if not self.writer.tight_formulas:
            shown = re.sub(r"([-+*/=])", r" \1 ", shown)
        return f"{shown}{unit}<<{formula}={result}>>{result}"


_SIMPLE = {
    "small": words.SMALL_BUYS,
    "big": words.BIG_BUYS,
    "chore": words.CHORES,
    "receivers": words.RECEIVERS,
    "children": words.CHILDREN,
}


def _another(chance: Chance, options: tuple[Thing, ...], old: Thing) -> Thing:
    while (thing := chance.pick(options)) is old:
        pass
    return thing
