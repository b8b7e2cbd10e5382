"""What can be wrong with a payload; RESTORE has an error reply for each of the two."""


class PayloadError(Exception):
    """A payload that can't be decoded."""


class WrongFooter(PayloadError):
    """Too short, of a later version of RDB, or its checksum is another."""


class BadFormat(PayloadError):
    """The footer is right, but what it covers isn't a value. The text is for people only."""
