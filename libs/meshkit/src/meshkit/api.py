"""A gRPC service as its proto describes it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import MethodOptions

if TYPE_CHECKING:
    from google.protobuf.descriptor import ServiceDescriptor

REPEATABLE = {MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT}


class Api:
    """What servers and channels need to know of one gRPC service.

    Args:
        descriptor: of the generated module, such as `DESCRIPTOR.services_by_name["PricingService"]`.

    Attributes:
        name: the full name, such as `aiomesh.pricing.v1.PricingService`.
    """

    def __init__(self, descriptor: ServiceDescriptor) -> None:
        self.name: str = descriptor.full_name
        self._descriptor = descriptor

    @cached_property
    def repeatable(self) -> tuple[str, ...]:
        """The methods that may be retried: those whose proto has `option idempotency_level`."""
        methods = self._descriptor.methods
        return tuple(method.name for method in methods if method.GetOptions().idempotency_level in REPEATABLE)
