"""The gRPC port of inventory. Domain errors pass through: the server's interceptor turns them into a status."""

# ruff: noqa: ARG002, N802 - names and signatures are gRPC's
from __future__ import annotations

from typing import TYPE_CHECKING

from aiomesh.inventory.v1 import inventory_service_pb2 as pb
from aiomesh.inventory.v1 import inventory_service_pb2_grpc as pb_grpc
from inventory import convert
from inventory.domain import UnknownSku
from inventory.page_token import write_token

if TYPE_CHECKING:
    from inventory.store import InventoryStore
    from meshkit.server.context import Context


class InventoryServicer(pb_grpc.InventoryServiceServicer):
    """Implements `inventory_service.proto` on a store. Stateless."""

    def __init__(self, store: InventoryStore) -> None:
        self._store = store

    async def GetStock(self, request: pb.GetStockRequest, context: Context) -> pb.GetStockResponse:
        """Reads the stock of one SKU."""
        sku = convert.to_sku(request)
        stocks = await self._store.stocks([sku])
        if sku not in stocks:
            raise UnknownSku(sku)
        response = pb.GetStockResponse()
        convert.write_stock(stocks[sku], response.stock)
        return response

    async def BatchGetStock(self, request: pb.BatchGetStockRequest, context: Context) -> pb.BatchGetStockResponse:
        """Reads many stocks at one moment."""
        skus = convert.to_skus(request)
        stocks = await self._store.stocks(set(skus))
        response = pb.BatchGetStockResponse(missing_skus=dict.fromkeys(sku for sku in skus if sku not in stocks))
        for sku in skus:
            if sku in stocks:
                convert.write_stock(stocks[sku], response.stocks.add())
        return response

    async def ListStock(self, request: pb.ListStockRequest, context: Context) -> pb.ListStockResponse:
        """Reads one page of all stock."""
        page = await self._store.page(*convert.to_page(request))
        token = write_token(page.next_after) if page.next_after else ""
        response = pb.ListStockResponse(next_page_token=token)
        for stock in page.stocks:
            convert.write_stock(stock, response.stocks.add())
        return response

    async def ReserveStock(self, request: pb.ReserveStockRequest, context: Context) -> pb.ReserveStockResponse:
        """Holds units, all lines or none."""
        reservation = await self._store.reserve(convert.to_reservation_request(request))
        return pb.ReserveStockResponse(reservation=convert.from_reservation(reservation))

    async def UndoReserveStock(
        self, request: pb.UndoReserveStockRequest, context: Context
    ) -> pb.UndoReserveStockResponse:
        """Undoes an attempt whose reservation no caller has received."""
        return pb.UndoReserveStockResponse(undone=await self._store.undo(*convert.to_attempt(request)))

    async def GetReservation(self, request: pb.GetReservationRequest, context: Context) -> pb.GetReservationResponse:
        """Reads a reservation."""
        reservation = await self._store.reservation(convert.to_reservation_id(request.reservation_id))
        return pb.GetReservationResponse(reservation=convert.from_reservation(reservation))

    async def BatchGetReservations(
        self, request: pb.BatchGetReservationsRequest, context: Context
    ) -> pb.BatchGetReservationsResponse:
        """Reads many reservations at one moment."""
        ids = convert.to_reservation_ids(request)
        found = await self._store.reservations(ids)
        return pb.BatchGetReservationsResponse(
            reservations=[convert.from_reservation(found[id_]) for id_ in ids if id_ in found],
            missing_reservation_ids=[id_ for id_ in ids if id_ not in found],
        )

    async def CommitReservation(
        self, request: pb.CommitReservationRequest, context: Context
    ) -> pb.CommitReservationResponse:
        """Removes the units from the warehouse."""
        id_ = convert.to_reservation_id(request.reservation_id)
        reservation = await self._store.commit(id_, request.fingerprint)
        return pb.CommitReservationResponse(reservation=convert.from_reservation(reservation))

    async def ReleaseReservation(
        self, request: pb.ReleaseReservationRequest, context: Context
    ) -> pb.ReleaseReservationResponse:
        """Makes the units available again."""
        id_ = convert.to_reservation_id(request.reservation_id)
        reservation = await self._store.release(id_, request.fingerprint)
        return pb.ReleaseReservationResponse(reservation=convert.from_reservation(reservation))

    async def PurgeReservations(
        self, request: pb.PurgeReservationsRequest, context: Context
    ) -> pb.PurgeReservationsResponse:
        """Deletes old reservations that are released or expired."""
        deleted = await self._store.purge(convert.to_expire_time_before(request))
        return pb.PurgeReservationsResponse(deleted_count=deleted)

    async def AdjustStock(self, request: pb.AdjustStockRequest, context: Context) -> pb.AdjustStockResponse:
        """Changes the units on hand."""
        stock = await self._store.adjust(convert.to_adjustment(request))
        response = pb.AdjustStockResponse()
        convert.write_stock(stock, response.stock)
        return response
