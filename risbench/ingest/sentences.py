"""Rules on sentences: what can be kept, what names several objects, what says nothing.

Each rule has a name, and the ones that set rows aside can be turned off.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final

from risbench.core.classes import CLASS_PHRASES, find_class, to_class
from risbench.core.errors import InvalidRowError

MAX_SENTENCE_CHARACTERS: Final = 1000

_NUMBER_WORDS: Final = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|dozens|hundreds"
_MANY: Final = "several|many|multiple|various|numerous|some|few|both|all|these|those|different|other"
_COLLECTIVES: Final = "group|pair|row|rows|cluster|collection|line|series|fleet|set|bunch|couple|number|array|column|stack"
# The head of the sentence ends where it starts to say where the object is, or how it relates to others.
_HEAD_END = re.compile(
    r"\b(?:at|in|on|near|next|beside|besides|between|with|without|that|which|who|whose|is|are|was|were|located|situated|positioned|"
    r"placed|parked|docked|moored|anchored|sitting|standing|lying|visible|found|seen|closest|nearest|farthest|furthest|to|from|along|"
    r"alongside|adjacent|by|above|below|under|underneath|behind|beyond|over|across|among|amongst|around|inside|within|outside|towards?|"
    r"facing|surrounded|surrounding|connected|connecting|crossing|running|extending|oriented|aligned|having|there|where|while|for|"
    r"against|opposite|just|directly|slightly|immediately|of|like|featuring|containing|due|and)\b|[,;:.(]"
)
_ONE_OF = re.compile(
    r"^(?:the |a |an )?(?:\w+[- ]){0,3}?(?:one|first|second|third|fourth|last|only|\w+est|most|leftmost|rightmost|larger|smaller|"
    r"\w+-most)\b"
)
_PLURAL_EXCEPTIONS: Final = frozenset(
    {"tennis", "bus", "gas", "grass", "cross", "canvas", "overpass", "across", "pass", "campus", "athletics"}
)
_CLASS_NOUNS: Final = frozenset(phrase.split()[-1] for phrase, _ in CLASS_PHRASES)
_ARTICLES = re.compile(r"^(?:the|a|an|one|1|this|that)\s+")


@functools.lru_cache(maxsize=1 << 14)
def clean_sentence(text: str) -> str:
    """Return the sentence with Unicode composed and runs of white space as one blank.

    Emoji and right-to-left letters are text and stay.

    Raises:
        InvalidRowError: control or escape characters, direction overrides, lone surrogates, or more than 1,000 characters.
    """
    if len(text) > MAX_SENTENCE_CHARACTERS:
        raise InvalidRowError(
            "sentence_too_long", "sentence", text, f"it has {len(text):,} characters; at most {MAX_SENTENCE_CHARACTERS:,}"
        )
    cleaned = " ".join(unicodedata.normalize("NFC", text).split())
    check_text(cleaned, "sentence")
    return cleaned


def check_text(text: str, field: str) -> None:
    """Check that a source's text can stand in a record and be printed.

    Raises:
        InvalidRowError: control or escape characters, line separators, direction overrides, or lone surrogates.
    """
    if text.isascii() and text.isprintable():
        return
    for character in text:
        category = unicodedata.category(character)
        # U+200D joins emoji and U+200E/U+200F are the harmless direction marks of right-to-left text.
        if category in ("Cc", "Cs", "Co", "Zl", "Zp") or (category == "Cf" and character not in "\u200c\u200d\u200e\u200f\ufeff"):
            raise InvalidRowError("control_character", field, text, f"U+{ord(character):04X} is no text; remove it")


@functools.lru_cache(maxsize=1 << 14)
def normalise(sentence: str) -> str:
    """Return the sentence for comparison: lower case, no punctuation at its ends, no leading article."""
    folded = re.sub(r"[^\w\s]", " ", sentence.casefold())
    return _ARTICLES.sub("", " ".join(folded.split()))


@functools.lru_cache(maxsize=1 << 14)
def names_several(sentence: str) -> str | None:
    """Return why the sentence means several objects, or None where it means one.

    Only its head counts: "the ship between two harbors" means one ship, "the largest of three ships" too.
    """
    text = sentence.casefold().strip()
    collective = re.match(rf"^(?:the |a |an )?(?:[\w-]+ ){{0,3}}?({_COLLECTIVES}) of (?:[\w-]+ ){{0,4}}?([\w-]+s)\b", text)
    before = _HEAD_END.search(text)
    if collective is not None and (before is None or before.start() > collective.start(1)):
        return f"'{collective[1]} of {collective[2]}'"
    head_end = _HEAD_END.search(text)
    head = text[: head_end.start()].strip() if head_end else text
    if not head:
        return None
    joined = re.match(rf"^{re.escape(head)}\s+and\s+(?:the|a|an)\s+([\w-]+(?: [\w-]+){{0,3}})", text)
    if joined is not None and find_class(head) is not None and find_class(joined[1]) is not None:
        return f"'{head}' and '{joined[1]}'"
    count = re.match(r"^(?:the |about |around |approximately )*(\d+)\b(?!\s*(?:st|nd|rd|th|m\b|meter|metre))", head)
    if count is not None and int(count[1][:9]) > 1:
        return f"the number {count[1]}"
    word = re.match(rf"^(?:the |all |a )*({_NUMBER_WORDS}|{_MANY})\b", head)
    if word is not None:
        return f"'{word[1]}'"
    if _ONE_OF.match(head) and not _plural_class(head):
        return None
    plural = _plural_class(head)
    return f"the plural '{plural}'" if plural else None


def _plural_class(head: str) -> str | None:
    """Return the head's last word where it is the plural of a class name."""
    last = re.findall(r"[a-z]+", head)[-1:] or [""]
    word = last[0]
    if not word.endswith("s") or word in _PLURAL_EXCEPTIONS or word.endswith("ss"):
        return None
    singular = {word[:-1], word.removesuffix("es"), re.sub("ies$", "y", word)}
    return word if word not in _CLASS_NOUNS and singular & _CLASS_NOUNS else None


def says_only_the_class(sentence: str) -> bool:
    """Return whether nothing is left of the sentence but a class name."""
    return to_class(normalise(sentence)) is not None
