"""The bodies of requests and responses: the contract of the REST API, without protobuf and domain types."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api_edge.domain import OrderState
from api_edge.rest.examples import NEW_ORDER, ORDER_ID, PRODUCT
from api_edge.rules import DEFAULT_CURRENCY, MAX_LINES, MAX_QUANTITY, MAX_SKU, duplicates

if TYPE_CHECKING:
    from collections.abc import Iterable

    from api_edge import domain


WHOLE_NUMBER = re.compile("-?[0-9]+")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("unprintable", "String should have printable characters only")
    return text


def _in_digits(text: str) -> str:
    if not WHOLE_NUMBER.fullmatch(text):
        raise PydanticCustomError("not_in_digits", "Input should be a whole number, in digits")
    return text


IN_DIGITS = BeforeValidator(_in_digits)
"""For an integer in a query: by itself pydantic also accepts `1_000`, `+5` and `1.0`, and no setting changes that."""

Sku = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SKU), AfterValidator(_printable)]
Amount = Annotated[str, Field(examples=["15.21"], description="A decimal string in the currency's own digits")]


class Stock(BaseModel):
    """Units of a product: `available = on_hand - reserved`."""

    model_config = ConfigDict(from_attributes=True)

    on_hand: int = Field(examples=[500])
    reserved: int = Field(examples=[0])
    available: int = Field(examples=[500])
    version: int = Field(examples=[1], description="Increases with each change of this stock")


class Price(BaseModel):
    """What `quantity` units cost now."""

    currency: str = Field(examples=["EUR"])
    unit_price: Amount
    quantity: int = Field(examples=[1])
    total: Annotated[str, Field(examples=["15.21"], description="`unit_price` x `quantity`")]


class Degradation(BaseModel):
    """Why a part of a product is missing."""

    model_config = ConfigDict(from_attributes=True)

    service: str = Field(examples=["pricing"])
    code: str = Field(examples=["UNAVAILABLE"], description="gRPC status code")
    reason: str = Field(examples=["UNAVAILABLE"])


class Product(BaseModel):
    """A product with its stock and, if known, its price."""

    sku: str = Field(examples=["TEA-0001"])
    title: str = Field(examples=[PRODUCT["title"]])
    category: str = Field(examples=["tea"])
    stock: Stock
    price: Price | None = Field(description="null if there is no price; `problems` has the reason")
    problems: list[Degradation]

    @classmethod
    def of(cls, product: domain.Product) -> Self:
        """The body for a product of the storefront."""
        return cls.model_validate(_fields(product))


class ProductPage(BaseModel):
    """One page of products."""

    products: list[Product]
    next_page_token: str = Field(examples=[""], description="`page_token` of the next page; empty after the last page")

    @classmethod
    def of(cls, products: Iterable[domain.Product], next_page_token: str) -> Self:
        """The body for products of the storefront."""
        return cls.model_validate({"products": [*map(_fields, products)], "next_page_token": next_page_token})


class NewOrderLine(BaseModel):
    """One line of a new order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sku: Sku = Field(examples=["TEA-0001"])
    quantity: int = Field(ge=1, le=MAX_QUANTITY, examples=[2])


class NewOrder(BaseModel):
    """The order to place."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [NEW_ORDER]})

    currency: str = Field(DEFAULT_CURRENCY, examples=["EUR"], description="ISO 4217")
    lines: list[NewOrderLine] = Field(min_length=1, max_length=MAX_LINES, description="Each SKU once")

    @model_validator(mode="after")
    def _each_sku_once(self) -> Self:
        if any(duplicates(line.sku for line in self.lines)):
            raise PydanticCustomError("repeated_sku", "a SKU is in more than one line; send one line for each SKU")
        return self


class OrderLine(BaseModel):
    """One line of an order, at its frozen price."""

    sku: str = Field(examples=["TEA-0001"])
    quantity: int = Field(examples=[2])
    unit_price: Amount
    total: Annotated[str, Field(examples=["30.42"])]


class Order(BaseModel):
    """An order as it is now."""

    id: str = Field(examples=[ORDER_ID])
    state: OrderState
    currency: str = Field(examples=["EUR"])
    lines: list[OrderLine]
    total: Annotated[str, Field(examples=["44.92"])]
    expire_time: datetime = Field(description="The time at which a RESERVED order expires")

    @classmethod
    def of(cls, order: domain.Order) -> Self:
        """The body for an order of the storefront."""
        return cls(
            id=order.reservation.id,
            state=order.reservation.state,
            currency=order.quote.currency,
            lines=[
                OrderLine(sku=line.sku, quantity=line.quantity, unit_price=str(line.unit_price), total=str(line.total))
                for line in order.quote.lines
            ],
            total=str(order.quote.total),
            expire_time=order.reservation.expire_time,
        )


def _fields(product: domain.Product) -> dict[str, object]:
    """The fields of a product. Validating them in one call costs less than constructing each of its models."""
    stock, price = product.stock, product.price
    return {
        "sku": stock.sku,
        "title": stock.title,
        "category": stock.category,
        "stock": stock,
        "price": price
        and {
            "currency": price.unit_price.currency,
            "unit_price": str(price.unit_price),
            "quantity": price.quantity,
            "total": str(price.total),
        },
        "problems": product.problems,
    }
