"""Composition root of the gateway: builds every part once and runs them until asked to stop.

Nothing waits for NATS: a gateway that finds its last-known-good snapshot answers from the first second, with 503
for scoring as long as no replica can be reached.
"""

import asyncio
import contextlib
import functools
import logging
import random
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol, cast

import structlog
import uvicorn
from nats import errors

from servery_common.messaging.bus import connect_bus
from servery_common.messaging.connection import connect_inference
from servery_common.messaging.port import Bus
from servery_common.service import ServiceContext
from servery_common.settings import NatsSettings
from servery_gateway.asgi import GatewayApp
from servery_gateway.auth import Authenticator
from servery_gateway.careful_protocol import idle_connections
from servery_gateway.client_addresses import ClientAddresses
from servery_gateway.dispatch_limits import DispatchLimits
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.doorkeeper import Doorkeeper
from servery_gateway.http_protocol import GatewayProtocol
from servery_gateway.ip_access import IpAccess
from servery_gateway.limit_gossip import LimitGossip
from servery_gateway.load_reporter import report_load
from servery_gateway.loop_lag import LoopLag
from servery_gateway.management import ManagementHandler
from servery_gateway.metrics_reporter import report_metrics
from servery_gateway.nats_transport import NatsTransport
from servery_gateway.oauth import TokenEndpoint
from servery_gateway.operator_metrics import GatewayMetrics
from servery_gateway.public_routes import PublicRoutes
from servery_gateway.quotas import WorkspaceQuotas
from servery_gateway.rate_limits import RateLimiter
from servery_gateway.rejections import Rejections
from servery_gateway.request_body import BodyBudget
from servery_gateway.request_meter import RequestMeters
from servery_gateway.request_trace import RequestTracer
from servery_gateway.routing_table import BUCKETS, INCARNATIONS, RoutingTable
from servery_gateway.scoring import ScoringHandler
from servery_gateway.settings import GatewaySettings
from servery_gateway.shadows import Shadows
from servery_gateway.short_requests import ShortRequests
from servery_gateway.snapshot_file import SnapshotFile, SnapshotWriter
from servery_gateway.streaming import is_news
from servery_gateway.token_finder import TokenFinder
from servery_gateway.waking import send_wakes

KEEP_ALIVE_SECONDS = 75
"""An idle client connection is kept this long; longer than the usual 60 s of load balancers, so that they
close first and never send into a closing connection."""
TICK_SECONDS = 1.0
CLOSE_SECONDS = 2.0
JOIN_SECONDS = 1.0
"""Longest wait of one process of several before it takes connections though NATS is not there."""

log = structlog.get_logger(__name__)


class Spawner(Protocol):
    """Starts a named background task whose death ends the service."""

    def __call__(self, name: str, coroutine: Coroutine[Any, Any, Any], /) -> asyncio.Task[Any]:
        """Start it."""
        ...


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: ``servery_common.service`` decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class GatewayService:
    """All parts of one gateway. Construct it inside the event loop. ``sockets``, if given, are bound already."""

    def __init__(
        self, settings: GatewaySettings, nats: NatsSettings, sockets: list[socket.socket] | None = None
    ) -> None:
        self.settings = settings
        self.gateway_id = secrets.token_hex(8)
        self.bus: Bus | None = None
        self._nats = nats
        self._sockets = sockets
        self._stopping = False
        self._http: asyncio.Task[Any] | None = None
        file = SnapshotFile(settings.data_dir)
        self.table = RoutingTable(file.load(), settings.absence_grace)
        self._writer = SnapshotWriter(file, settings.snapshot_debounce)
        self.transport = NatsTransport(self.gateway_id, settings.max_answer_bytes)
        self.dispatcher = Dispatcher(
            self.transport,
            DispatchLimits(
                settings.accept_timeout,
                settings.replica_wait,
                settings.max_queue_wait,
                settings.max_queued_body_bytes,
            ),
            random.random,
        )
        self.transport.listen(self.dispatcher)
        authenticator = Authenticator(TokenFinder(lambda: self.bus, time.monotonic))
        public = PublicRoutes(self.why_not_ready)
        self.table.observe(authenticator.update)
        self.table.observe(public.update, ("identities", "signing_keys"))
        self.meters = RequestMeters()
        self.rejections = Rejections()
        self.lag = LoopLag(settings.max_loop_lag)
        self.table.follow_routes(self.dispatcher.follow)
        self.table.follow_routes(self.meters.follow)
        self.table.follow_routes(self.rejections.follow)
        self.shadows = Shadows(self.dispatcher, self.lag, random.random)
        self.table.follow_routes(self.shadows.follow)
        self.table.observe(self._writer.note)
        ip_access = IpAccess()
        self.table.observe(ip_access.update, ("ip_access", INCARNATIONS))
        self.quotas = WorkspaceQuotas()
        self.table.observe(self.quotas.update, ("quotas",))
        called = asyncio.Event()
        self.limiter = RateLimiter(called=called.set)
        self._gossip = LimitGossip(self.quotas, self.limiter, called, self.gateway_id, lambda: self.bus)
        self.bodies = BodyBudget(settings.max_held_body_bytes)
        doorkeeper = Doorkeeper(
            self.table,
            ip_access,
            self.quotas,
            self.limiter,
            self.meters,
            self.rejections,
            self.lag,
            answer_margin=settings.answer_margin,
        )
        tracer = RequestTracer()
        short = ShortRequests(
            settings.max_body_bytes,
            authenticator,
            doorkeeper,
            self.dispatcher,
            self.bodies,
            tracer,
            self.shadows,
        )
        app = GatewayApp(
            scoring=ScoringHandler(
                settings, authenticator, doorkeeper, self.dispatcher, self.bodies, tracer, self.shadows
            ),
            management=ManagementHandler(settings, authenticator, ip_access, self, self.bodies),
            authenticator=authenticator,
            ip_access=ip_access,
            tokens=TokenEndpoint(lambda: self.bus, self.bodies),
            public=public,
        )
        logging.getLogger("uvicorn.error").addFilter(is_news)
        protocol = functools.partial(
            GatewayProtocol,
            short=short,
            idle=idle_connections(),
            clients=ClientAddresses(settings.trusted_proxies),
        )
        self._server = _Server(
            uvicorn.Config(
                app,  # pyright: ignore[reportArgumentType]  (uvicorn's own protocol of the same shape)
                host=settings.host,
                port=settings.port,
                # Not checked: uvicorn calls it, and asks for a class only in its types.
                http=cast(Any, protocol),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=settings.trusted_proxies,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(settings.stop_grace),
            )
        )

        self.metrics = GatewayMetrics(
            self.table,
            self.meters,
            self.rejections,
            self.dispatcher,
            self.bodies,
            self.lag,
            connections=lambda: len(self._server.server_state.connections),
            why_not_ready=self.why_not_ready,
        )

    @property
    def port(self) -> int:
        """The port that is listened on, also when it was chosen by the system."""
        return self._server.servers[0].sockets[0].getsockname()[1]

    def why_not_ready(self) -> str | None:
        """Return why no work should be sent here, or None."""
        if self._stopping:
            return "stopping"
        if not self.table.loaded:
            return "no routes loaded yet"
        if not self.transport.connected or self.bus is None or not self.bus.connected:
            return "not connected to NATS"
        return None

    async def start(self, spawn: Spawner) -> None:
        """Start everything; return when the port answers."""
        spawn("snapshot-writer", self._writer.run())
        spawn("inference-connection", self._connect_inference())
        spawn("bus", self._run_bus(spawn))
        spawn("load-reporter", report_load(self.dispatcher, self.gateway_id, lambda: self.bus))
        spawn(
            "metrics-reporter",
            report_metrics(
                self.meters,
                self.rejections,
                self.shadows.tallies,
                self.lag,
                self.dispatcher,
                self.gateway_id,
                lambda: self.bus,
            ),
        )
        spawn("waker", send_wakes(self.dispatcher.waker, self.gateway_id, lambda: self.bus))
        spawn("demand-gossip", self._gossip.tell_demand())
        spawn("call-gossip", self._gossip.tell_calls())
        spawn("loop-lag", self.lag.run())
        spawn("ticker", self._tick())
        if self._sockets is not None:
            await self._let_others_answer()
        self._http = spawn("http", self._serve_http())
        while not self._server.started:
            if self._http.done():
                raise OSError(f"cannot listen on {self.settings.host}:{self.settings.port}")
            await asyncio.sleep(0.01)
        log.info("gateway_listening", host=self.settings.host, port=self.port, gateway_id=self.gateway_id)

    async def stop(self) -> None:
        """Take nothing new, finish what was taken (for at most ``stop_grace`` seconds), leave the snapshot behind."""
        self._stopping = True
        await asyncio.sleep(self.settings.stop_delay)
        log.info("gateway_draining", unfinished=self.dispatcher.unfinished)
        self._server.should_exit = True
        if self._http is not None:
            await asyncio.wait({self._http})
        await self._writer.flush()

    async def _let_others_answer(self) -> None:
        """Wait a moment for NATS: a process that takes connections of a shared port before would refuse requests."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(JOIN_SECONDS):
                while self.why_not_ready() is not None:  # noqa: ASYNC110 - several things, none of which can tell
                    await asyncio.sleep(0.01)

    async def _serve_http(self) -> None:
        try:
            await self._server.serve(self._sockets)
        except SystemExit as ended:
            # uvicorn's way to say that the port is taken; it has logged why.
            raise OSError("the HTTP server did not start") from ended

    async def _connect_inference(self) -> None:
        client = await connect_inference(
            self._nats,
            name=f"gateway-{self.gateway_id}-inference",
            on_disconnect=self.transport.connection_lost,
        )
        try:
            await self.transport.attach(client)
            await asyncio.Event().wait()
        finally:
            # Closing a connection that is being replaced may wait for the server; the process should end.
            with contextlib.suppress(errors.Error, OSError, TimeoutError):
                await asyncio.wait_for(client.close(), CLOSE_SECONDS)

    async def _run_bus(self, spawn: Spawner) -> None:
        async with connect_bus(self._nats, name=f"gateway-{self.gateway_id}", declare=False) as bus:
            self.bus = bus
            await self._gossip.listen(bus)
            for name in BUCKETS:
                spawn(f"watch-{name}", self._watch(bus, name))
            await asyncio.Event().wait()

    async def _watch(self, bus: Bus, name: str) -> None:
        loop = asyncio.get_running_loop()
        bucket, message = BUCKETS[name]
        async for change in bus.kv_watch(bucket, message):
            self.table.apply(name, change, loop.time())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.table.expire(loop.time())
            self.limiter.forget_idle()
            self.bodies.forget_idle()
            self.dispatcher.probe()


async def main(
    context: ServiceContext,
    sockets: list[socket.socket] | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Run the gateway until it is asked to stop. ``sockets``: what to listen on, instead of the settings' address."""
    service = GatewayService(GatewaySettings(), NatsSettings(), sockets)
    context.metrics.register(service.metrics)
    await service.start(context.spawn)
    context.ready()
    ready()
    await context.stopping.wait()
    await service.stop()
