"""What stands in for a row that a turn's commands write again and again.

It must not know tables or what rows mean. Invariant: it is encoded once, when somebody reads the
row or the batch of the turn is written (storage/table.py), and nobody uses it after that.
"""

from __future__ import annotations


class OpenRow:
    """A row that isn't encoded yet."""

    def encode(self) -> bytes:
        """The row. Encoding it may write rows of other tables."""
        raise NotImplementedError
