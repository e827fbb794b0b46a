"""The attributes of a span, without the cost of cleaning each."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from opentelemetry.attributes import BoundedAttributes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from opentelemetry.sdk.trace import SpanLimits
    from opentelemetry.util.types import AnyValue, Attributes

NUMBERS = frozenset({bool, int, float})


class SpanAttributes(BoundedAttributes):
    """Attributes that the SDK cleans, shortens and drops only if they are not plain, too long or too many."""

    dropped = 0
    _immutable = False

    def __init__(self, attributes: Attributes, limits: SpanLimits) -> None:
        self._dict = {}
        self.maxlen = limits.max_span_attributes
        self.max_value_len = limits.max_span_attribute_length
        self._lock = Lock()
        if attributes and (plain := self._plain(attributes.items())):
            self._dict = plain
        elif attributes:
            super()._set_items(attributes)

    def __setitem__(self, key: str, value: AnyValue) -> None:
        if self._plain(((key, value),)):
            self._dict.pop(key, None)  # because the last to be set is the last to be dropped
            self._dict[key] = value
        else:
            super().__setitem__(key, value)

    def _set_items(self, attributes: Mapping[str, AnyValue]) -> None:
        if plain := self._plain(attributes.items()):
            for key in plain:
                self._dict.pop(key, None)  # as above
            self._dict.update(plain)
        else:
            super()._set_items(attributes)

    def _plain(self, items: Collection[tuple[str, AnyValue]]) -> dict[str, AnyValue] | None:
        """These attributes if all of them may be set as they are."""
        if self._immutable or (self.maxlen is not None and len(self._dict) + len(items) > self.maxlen):
            return None
        longest, plain = self.max_value_len, {}
        for key, value in items:
            kind = type(value)
            is_plain = kind in NUMBERS or (kind is str and (longest is None or len(value) <= longest))  # type: ignore[arg-type]
            if not (is_plain and key and type(key) is str):
                return None
            plain[key] = value
        return plain
