"""Messages as a consumer would hand them over, without a broker."""

from __future__ import annotations

from collections.abc import Iterable


class Raw:
    """What the codec reads of ``confluent_kafka.Message``."""

    def __init__(
        self, value: bytes | None, offset: int = 0, partition: int = 0, key: bytes | None = None
    ) -> None:
        self._value = value
        self._offset = offset
        self._partition = partition
        self._key = key

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset


def in_order(values: Iterable[bytes | None], partition: int = 0, first: int = 0) -> list[Raw]:
    """Messages of one partition with consecutive offsets."""
    return [Raw(value, first + i, partition) for i, value in enumerate(values)]


def by_partition(messages: Iterable[tuple[int, bytes]]) -> list[Raw]:
    """(partition, value) pairs with each partition's own consecutive offsets."""
    next_offset: dict[int, int] = {}
    out = []
    for partition, value in messages:
        offset = next_offset.get(partition, 0)
        next_offset[partition] = offset + 1
        out.append(Raw(value, offset, partition))
    return out
