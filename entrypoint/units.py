"""Amounts for people: memory and time."""

GIB = 1024**3


def gib(size: float) -> str:
    """Bytes of memory or disk."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.0f} MiB"


def duration(seconds: float) -> str:
    """A time, in the two largest units that it has."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{seconds / 86400:.1f} days"
    return f"{hours} h {minute:02} min" if hours else f"{minutes} min {rest} s"
