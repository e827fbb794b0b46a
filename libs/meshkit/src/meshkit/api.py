"""A gRPC service as its proto describes it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import MethodOptions

if TYPE_CHECKING:
    from google.protobuf.descriptor import ServiceDescriptor

REPEATABLE = {MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT}


class Api:
    """One gRPC service, as servers and channels need it.

    Args:
        descriptor: from the generated module, such as `DESCRIPTOR.services_by_name["PricingService"]`.

    Attributes:
        name: the full name, such as `aiomesh.pricing.v1.PricingService`.
    """

    def __init__(self, descriptor: ServiceDescriptor) -> None:
        self.name: str = descriptor.full_name
        self._descriptor = descriptor

    @cached_property
    def repeatable(self) -> tuple[str, ...]:
        """The methods that may be retried: those with `option idempotency_level` in the proto."""
        methods = self._descriptor.methods
        return tuple(method.name for method in methods if method.GetOptions().idempotency_level in REPEATABLE)
