"""What an operator sees of a join: one trace from the request to the first packets, and log lines that say whom they concern."""

import asyncio
import http.server
import json
import threading
from collections import Counter

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cluster import Cluster
from harness import Server, until
from people import Person

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """Takes traces by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans = []
        spans = self.spans

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                        spans.extend(span for scope in resource.scope_spans for span in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def attribute(span, key: str) -> str | None:
    return next((one.value.string_value for one in span.attributes if one.key == key), None)


@pytest.fixture(scope="module")
def collector():
    running = Collector()
    yield running
    running.close()


@pytest.fixture(scope="module")
def server(collector):
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "PLENARY__LOG__FORMAT": "json",
        "PLENARY__LOG__FILTER": "info,plenary=debug",
    }
    running = Server(**environment)
    yield running
    assert running.stop() == 0, running.log


async def test_a_join_is_one_trace_from_the_request_to_the_first_packets(server, collector, join, room):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await ann.publish_tone(440)
    await bob.publish_tone(660)
    await asyncio.gather(bob.hears("ann", 440), ann.hears("bob", 660))
    sid = ann.me.sid
    await ann.close()
    session = await until(
        "ann's session was exported",
        lambda: next((one for one in collector.spans if one.name == "session" and attribute(one, "sid") == sid), None),
    )
    assert (attribute(session, "room"), attribute(session, "participant")) == (room, "ann")
    assert attribute(session, "reason") == "client_initiated"

    trace = [one for one in collector.spans if one.trace_id == session.trace_id]
    stages = Counter((one.name, attribute(one, "transport")) for one in trace)
    both = [(name, transport) for name in ("ice", "dtls", "negotiation", "first_packet") for transport in ("publisher", "subscriber")]
    expected = [(name, None) for name in ("http.request", "join", "authorize", "seat", "session")] + both
    assert stages == Counter(expected), stages
    by_name = {(one.name, attribute(one, "transport")): one for one in trace}
    request = by_name["http.request", None]
    for name, parent in [("join", request), ("authorize", by_name["join", None]), ("session", by_name["join", None])]:
        assert by_name[name, None].parent_span_id == parent.span_id, name
    for name, transport in both:
        span = by_name[name, transport]
        assert span.parent_span_id == session.span_id
        assert session.start_time_unix_nano <= span.start_time_unix_nano < span.end_time_unix_nano <= session.end_time_unix_nano
        assert span.status.code != 2, f"{name} {transport} did not end well"
    for transport in ("publisher", "subscriber"):
        ice, dtls, packet = (by_name[name, transport] for name in ("ice", "dtls", "first_packet"))
        assert ice.end_time_unix_nano <= dtls.end_time_unix_nano <= packet.end_time_unix_nano

    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    connected = [line for line in lines if line["message"] == "peer connected" and line["spans"][0]["sid"] == sid]
    assert len(connected) == 2, lines
    for line in connected:
        assert line["trace_id"] == session.trace_id.hex()
        assert (line["spans"][0]["room"], line["spans"][0]["participant"]) == (room, "ann")


async def test_a_request_continues_the_trace_of_the_host_application(server, collector):
    async with aiohttp.ClientSession() as client:
        async with client.get(f"{server.http}/rtc/validate", headers={"traceparent": TRACEPARENT}) as response:
            assert response.status == 401
    trace, parent = (bytes.fromhex(part) for part in TRACEPARENT.split("-")[1:3])
    span = await until("it was exported", lambda: next((one for one in collector.spans if one.trace_id == trace), None))
    assert (span.name, span.parent_span_id, attribute(span, "http.route")) == ("http.request", parent, "/rtc/validate")


async def test_a_stage_that_never_came_to_its_end_is_marked(server, collector, room):
    person = Person("eve")
    await person.join(server.url, server.token(room, "eve"))
    sid = person.me.sid
    await person.close()
    session = await until(
        "eve's session was exported",
        lambda: next((one for one in collector.spans if one.name == "session" and attribute(one, "sid") == sid), None),
    )
    stages = [one for one in collector.spans if one.parent_span_id == session.span_id and attribute(one, "transport")]
    assert stages and all(one.name != "first_packet" for one in stages), "nothing was sent to or by her"


async def test_a_trace_goes_on_at_the_nodes_that_its_effects_reach(collector, room):
    cluster = Cluster(2, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="100")
    ann, bob = Person("ann"), Person("bob")

    def spans(name: str, trace: bytes) -> list:
        return [one for one in collector.spans if one.name == name and one.trace_id == trace]

    def seen_of(sid: str):
        return next((one for one in collector.spans if one.name == "join.seen" and attribute(one, "sid") == sid), None)

    try:
        first, second = cluster.nodes
        await ann.join(first.url, first.token(room, "ann"))
        await bob.join(second.url, second.token(room, "bob"))
        await ann.knows(bob)
        seen = await until("bob's join was seen at the other node", lambda: seen_of(bob.me.sid))
        (seat,) = await until("its seat was exported", lambda: spans("seat", seen.trace_id))
        assert seen.parent_span_id == seat.span_id
        assert attribute(seen, "room") == room
        assert not seen_of(ann.me.sid), "nobody was there to see it"

        trace, parent = (bytes.fromhex(part) for part in TRACEPARENT.split("-")[1:3])
        token = second.token(room, "host", room_join=False, room_admin=True)
        headers = {"Authorization": f"Bearer {token}", "traceparent": TRACEPARENT}
        call = f"{second.http}/twirp/livekit.RoomService/UpdateParticipant"
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.post(call, json={"room": room, "identity": "ann", "name": "Anna"}) as answer:
                assert answer.status == 200, await answer.text()
        (carried_out,) = await until("the call was carried out elsewhere", lambda: spans("administer", trace))
        twirp = lambda: [one for one in spans("http.request", trace) if attribute(one, "http.route") != "/rtc/validate"]  # noqa: E731
        (request,) = await until("the request was exported", twirp)
        assert (carried_out.parent_span_id, request.parent_span_id) == (request.span_id, parent)
    finally:
        await asyncio.gather(ann.close(), bob.close())
        await asyncio.to_thread(cluster.close)
