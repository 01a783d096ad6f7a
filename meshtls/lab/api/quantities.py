"""Resource quantities: the canonical form, and the number."""
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any

FORM = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def quantity(value: Any) -> str | None:
    """A resource quantity in canonical form: 1000m is 1, 0.5 is 500m, 1024Mi is 1Gi. None for what is none."""
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    found = re.fullmatch(FORM, text) if isinstance(text, str) else None
    try:
        number = Decimal(found[1]) if found else Decimal("nan")
    except InvalidOperation:
        number = Decimal("nan")
    if not found or not number.is_finite():
        return None
    suffix = found[2]
    if suffix in _BINARY:
        whole = number * 1024 ** _BINARY[suffix]
        power = 0
        while whole and power < 6 and whole % 1024 == 0:
            whole, power = whole / 1024, power + 1
        return f"{math.ceil(whole)}{['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'][power]}"
    if suffix in _DECIMAL:
        nano = math.ceil(number * Decimal(1000) ** (_DECIMAL[suffix] + 3))
        power = -3
        while nano and power < 6 and nano % 1000 == 0:
            nano, power = nano // 1000, power + 1
        return f"{nano}{next(name for name, place in _DECIMAL.items() if place == power)}" if nano else "0"
    return str(text)


def amount(text: str) -> Decimal:
    """A canonical quantity as a number; 0 for what is none."""
    digits = text.rstrip("numkKMGTPEi")
    unit = text[len(digits):]
    if unit.endswith("i"):
        power = Decimal(1024) ** (" KMGTPE".index(unit[0]))
    else:
        power = Decimal(1000) ** ("num kMGTPE".index(unit or " ") - 3)
    try:
        return Decimal(digits) * power
    except ArithmeticError:
        return Decimal(0)
