"""The status of an RPC whose handler raises: that of a ServiceError, and INTERNAL for everything else."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc
from grpc_status import rpc_status
from opentelemetry import trace

from meshkit.errors import Internal, ServiceError, Unimplemented, describe, mapping_of
from meshkit.status import write_status
from meshkit.telemetry.semconv import SERVER_ERRORS

if TYPE_CHECKING:
    from meshkit.server.context import CallContext, Request, Response
    from meshkit.server.types import Behavior

log = logging.getLogger("meshkit.server")


def errors(method: str, behavior: Behavior[Request, Response]) -> Behavior[Request, Response]:
    """Ends the RPC with the rich status of the ServiceError that its handler raised.

    The trailing metadata that the handler has set arrive, too. What made the service fail, such as a database that is
    full, is in the log only.
    A method of the generated servicer that is not overridden is UNIMPLEMENTED.
    Every other exception is a bug: the caller gets INTERNAL with a fixed text, the log and the span get the traceback.
    So is a cancellation that is not the caller's; gRPC would leave the caller waiting.
    """
    name = method.lstrip("/")

    async def respond(context: CallContext[Request, Response]) -> Response | None:
        try:
            return await behavior(context)
        except grpc.aio.AbortError:
            raise
        except ServiceError as error:
            status = write_status(error)
            if error.__cause__ and mapping_of(error).code in SERVER_ERRORS:
                log.warning("%s failed: %s", name, describe(error))
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and context.is_cancelled():
                raise
            status = write_status(_error_of(error, context, name))
        if not context.done():  # as it is after an `abort` that the handler turned into something else
            end = rpc_status.to_status(status)
            trailing = (*(context.trailing_metadata() or ()), *end.trailing_metadata)
            await context.abort(end.code, end.details, trailing)
        return None

    return respond


def _error_of(error: BaseException, context: CallContext[Request, Response], name: str) -> ServiceError:
    """What the caller gets instead of an exception: UNIMPLEMENTED if the servicer has only what is generated."""
    if isinstance(error, NotImplementedError) and context.code_name() == "UNIMPLEMENTED":
        return Unimplemented("the service has no such method")
    log.error("%s failed", name, exc_info=error)
    trace.get_current_span().record_exception(error)
    return Internal("internal error")
