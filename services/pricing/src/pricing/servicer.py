"""The gRPC port of pricing. Domain errors pass through: the server's interceptor turns them into a status."""

# ruff: noqa: ARG002, N802 - names and signatures are gRPC's
from __future__ import annotations

from typing import TYPE_CHECKING

from aiomesh.pricing.v1 import pricing_service_pb2 as pb
from aiomesh.pricing.v1 import pricing_service_pb2_grpc as pb_grpc
from pricing import convert

if TYPE_CHECKING:
    from meshkit.server.context import Context
    from pricing.store import PriceStore


class PricingServicer(pb_grpc.PricingServiceServicer):
    """Implements `pricing_service.proto` on a store. Stateless."""

    def __init__(self, store: PriceStore) -> None:
        self._store = store

    async def GetPrice(self, request: pb.GetPriceRequest, context: Context) -> pb.GetPriceResponse:
        """Calculates one current price."""
        line, currency = convert.to_line(request)
        book = await self._store.price_book([line.sku], currency)
        response = pb.GetPriceResponse()
        convert.write_price(book.price(line, currency), response.price)
        return response

    async def BatchGetPrices(self, request: pb.BatchGetPricesRequest, context: Context) -> pb.BatchGetPricesResponse:
        """Calculates many prices at one moment."""
        lines, currency = convert.to_lines(request)
        book = await self._store.price_book({line.sku for line in lines}, currency)
        prices, missing = book.prices(lines, currency)
        response = pb.BatchGetPricesResponse(missing_skus=missing)
        for price in prices:
            convert.write_price(price, response.prices.add())
        return response

    async def CreateQuote(self, request: pb.CreateQuoteRequest, context: Context) -> pb.CreateQuoteResponse:
        """Freezes prices."""
        quote = await self._store.create_quote(convert.to_order(request))
        return pb.CreateQuoteResponse(quote=convert.from_quote(quote))

    async def UndoCreateQuote(self, request: pb.UndoCreateQuoteRequest, context: Context) -> pb.UndoCreateQuoteResponse:
        """Undoes an attempt whose quote no caller has received."""
        return pb.UndoCreateQuoteResponse(undone=await self._store.undo_create_quote(*convert.to_attempt(request)))

    async def ConfirmQuote(self, request: pb.ConfirmQuoteRequest, context: Context) -> pb.ConfirmQuoteResponse:
        """Keeps a quote from being undone."""
        quote = await self._store.confirm_quote(convert.to_quote_id(request))
        return pb.ConfirmQuoteResponse(quote=convert.from_quote(quote))

    async def GetQuote(self, request: pb.GetQuoteRequest, context: Context) -> pb.GetQuoteResponse:
        """Reads a quote."""
        quote = await self._store.get_quote(convert.to_quote_id(request))
        return pb.GetQuoteResponse(quote=convert.from_quote(quote))

    async def ListUnsettledQuotes(
        self, request: pb.ListUnsettledQuotesRequest, context: Context
    ) -> pb.ListUnsettledQuotesResponse:
        """Reads one page of the ids of unsettled quotes; the token of the next page is the last id."""
        ids, token = await self._store.unsettled_quotes(*convert.to_unsettled_page(request))
        return pb.ListUnsettledQuotesResponse(quote_ids=ids, next_page_token=token)

    async def SettleQuotes(self, request: pb.SettleQuotesRequest, context: Context) -> pb.SettleQuotesResponse:
        """Keeps or deletes quotes by what became of their orders."""
        deleted = await self._store.settle_quotes(convert.to_settlement(request))
        return pb.SettleQuotesResponse(deleted_count=deleted)

    async def SetPrice(self, request: pb.SetPriceRequest, context: Context) -> pb.SetPriceResponse:
        """Changes a list price."""
        price = await self._store.set_price(convert.to_price_change(request))
        response = pb.SetPriceResponse()
        convert.write_money(price, response.list_price)
        return response
