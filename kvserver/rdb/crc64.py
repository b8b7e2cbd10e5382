"""The checksum of RDB: CRC-64 with the polynomial of Jones, reflected, no final XOR (crc64.c)."""

from typing import Final

from anycrc import Model  # type: ignore[import-untyped]

_MODEL: Final = Model("CRC64-REDIS")


def crc64(data: bytes | memoryview, crc: int = 0) -> int:
    """The checksum of the data whose first part has the checksum `crc`."""
    result: int = _MODEL.calc(data, crc)
    return result
