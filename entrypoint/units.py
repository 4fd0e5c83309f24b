"""Amounts for people: memory, time and money."""

GIB = 1024**3


def gib(size: float) -> str:
    """Bytes of memory or disk."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.0f} MiB"


def duration(seconds: float) -> str:
    """A time, in the two largest units that it has."""
    if 0 < seconds < 1:
        return f"{seconds:.1g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{seconds / 86400:.1f} days"
    return f"{hours} h {minute:02} min" if hours else f"{minutes} min {rest} s"


def money(amount: float) -> str:
    """Of any currency."""
    return "under 0.01" if 0 < amount < 0.01 else f"{amount:,.2f}"
