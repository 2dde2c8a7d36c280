"""Numbers with their units, as people write them."""


def milliseconds(value: float) -> str:
    """A duration in ms with three significant digits: `0.46 ms`, `134 ms`, `12.2 s`."""
    return f"{significant(value)} ms" if value < 999.5 else f"{significant(value / 1e3)} s"


def size_of(count: float) -> str:
    """A number of bytes: `812 bytes`, `285 kB`, `44.8 MB`."""
    return scaled(count, "bytes", "kB", "MB", "GB")


def products(count: float) -> str:
    """A number of multiply-accumulates: `9.1 million`, `1.82 billion`."""
    return scaled(count, "", "thousand", "million", "billion").strip()


def scaled(count: float, *units: str) -> str:
    """`count` in the largest of `units`, each a thousand times the one before, of which there is at least one."""
    for unit in units[:-1]:
        if count < 999.5:
            return f"{significant(count)} {unit}"
        count /= 1e3
    return f"{significant(count)} {units[-1]}"


def significant(value: float) -> str:
    """`value` to three significant digits and never in powers of ten: `0.00123`, `1.54`, `134`, `12,200`."""
    if float(value).is_integer() and abs(value) < 1000:
        return f"{value:.0f}"
    digits = 0
    while abs(value) * 10**digits < 99.95 and digits < 9:
        digits += 1
    return f"{value:,.{digits}f}" if digits else f"{float(f'{value:.3g}'):,.0f}"
