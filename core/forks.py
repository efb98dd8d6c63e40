"""Renews locks and threads in forked children.

A child has only the thread that forked: a pool's threads are gone, and a lock that another thread
held is never released.
"""

import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """Has locks or threads."""

    def renew(self) -> None:
        """Replace them, in a child; another thread of the parent may have been anywhere."""


_OWNERS: WeakSet[Renewable] = WeakSet()


def renew_in_children(owner: Renewable) -> None:
    """Have ``owner.renew()`` called in each child that is forked while ``owner`` lives."""
    _OWNERS.add(owner)


def _renew_all() -> None:
    for owner in list(_OWNERS):
        owner.renew()


if hasattr(os, "register_at_fork"):  # where there is fork
    os.register_at_fork(after_in_child=_renew_all)
