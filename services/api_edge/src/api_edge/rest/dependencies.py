"""What routes are given: the storefront that the composition root made."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from api_edge.storefront import Storefront


def _storefront(request: Request) -> Storefront:
    return cast("Storefront", request.app.state.storefront)


StorefrontDep = Annotated[Storefront, Depends(_storefront)]
