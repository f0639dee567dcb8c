"""Packets, streams and remote calls between two libwebrtc clients."""

import asyncio

import pytest
from livekit import api, rtc


@pytest.fixture
def company(join):
    async def together(*names):
        people = await asyncio.gather(*(join(name) for name in names))
        for one in people:
            await one.knows(*(other for other in people if other is not one))
        return people

    return together


@pytest.mark.parametrize("reliable", [True, False])
async def test_a_packet_arrives_with_topic_sender_and_kind(company, reliable):
    ann, bob = await company("ann", "bob")
    kind = rtc.DataPacketKind.KIND_RELIABLE if reliable else rtc.DataPacketKind.KIND_LOSSY
    for here, there in ((ann, bob), (bob, ann)):
        text = f"hello {there.identity}"
        await here.me.publish_data(text, reliable=reliable, topic="greeting")
        packet = await there.receives(text)
        assert (packet.participant.identity, packet.topic, packet.kind) == (here.identity, "greeting", kind)


async def test_reliable_packets_arrive_complete_and_in_order(company):
    ann, bob = await company("ann", "bob")
    sent = [f"packet {index}" for index in range(200)]
    for text in sent:
        await ann.me.publish_data(text)
    await bob.receives(sent[-1])
    assert [packet.data.decode() for packet in bob.packets] == sent


async def test_a_packet_for_one_person_reaches_nobody_else(company):
    ann, bob, cat = await company("ann", "bob", "cat")
    await ann.me.publish_data("for bob", destination_identities=["bob"])
    await ann.me.publish_data("for all")
    await asyncio.gather(bob.receives("for all"), cat.receives("for all"))
    assert [packet.data for packet in bob.packets] == [b"for bob", b"for all"]
    assert [packet.data for packet in cat.packets] == [b"for all"]


async def test_a_large_packet_arrives_whole(company):
    ann, bob = await company("ann", "bob")
    await ann.me.publish_data("x" * 60_000)
    await bob.receives("x" * 60_000)


async def test_a_text_stream_arrives_whole(company):
    ann, bob = await company("ann", "bob")
    heard = asyncio.get_running_loop().create_future()

    def on_text(reader, sender):
        async def read():
            heard.set_result((sender, reader.info.topic, reader.info.attributes, await reader.read_all()))

        heard.reading = asyncio.create_task(read())

    bob.room.register_text_stream_handler("notes", on_text)
    text = "naïve Ünïcode " * 8000
    await ann.me.send_text(text, topic="notes", attributes={"mood": "fine"})
    sender, topic, attributes, read = await asyncio.wait_for(heard, 10)
    assert (sender, topic, attributes["mood"]) == ("ann", "notes", "fine")
    assert read == text


async def test_a_byte_stream_arrives_intact(company):
    ann, bob = await company("ann", "bob")
    heard = asyncio.get_running_loop().create_future()

    def on_bytes(reader, sender):
        async def read():
            heard.set_result((sender, reader.info.name, b"".join([chunk async for chunk in reader])))

        heard.reading = asyncio.create_task(read())

    bob.room.register_byte_stream_handler("files", on_bytes)
    content = bytes(index % 251 for index in range(1 << 20))
    writer = await ann.me.stream_bytes("photo.raw", total_size=len(content), topic="files")
    for offset in range(0, len(content), 15_000):
        await writer.write(content[offset : offset + 15_000])
    await writer.aclose()
    sender, name, read = await asyncio.wait_for(heard, 20)
    assert (sender, name) == ("ann", "photo.raw")
    assert read == content


async def test_a_remote_call_is_answered(company):
    ann, bob = await company("ann", "bob")
    bob.me.register_rpc_method("reverse", lambda data: data.payload[::-1])
    for payload in ("stressed", "ab" * 20_000):
        answer = await ann.me.perform_rpc(destination_identity="bob", method="reverse", payload=payload)
        assert answer == payload[::-1]


async def test_a_remote_call_fails_with_the_reason(company):
    ann, bob = await company("ann", "bob")

    def refuse(data):
        raise rtc.RpcError(42, "refused", f"by request of {data.caller_identity}")

    def break_down(_):
        raise ValueError("broken")

    bob.me.register_rpc_method("refuse", refuse)
    bob.me.register_rpc_method("break", break_down)

    async def failure(method: str, to: str = "bob") -> rtc.RpcError:
        with pytest.raises(rtc.RpcError) as raised:
            await ann.me.perform_rpc(destination_identity=to, method=method, payload="")
        return raised.value

    refused = await failure("refuse")
    assert (refused.code, refused.message, refused.data) == (42, "refused", "by request of ann")
    assert (await failure("break")).code == rtc.RpcError.ErrorCode.APPLICATION_ERROR
    assert (await failure("unknown")).code == rtc.RpcError.ErrorCode.UNSUPPORTED_METHOD


async def test_who_may_not_send_data_is_not_heard(join):
    ann, bob, cat = await asyncio.gather(join("ann", can_publish_data=False), join("bob"), join("cat"))
    for one in (ann, bob, cat):
        await one.knows(*({"ann", "bob", "cat"} - {one.identity}))
    try:
        await asyncio.wait_for(ann.me.publish_data("unheard"), 5)
    except (asyncio.TimeoutError, Exception):
        # Whether the client notices is its own affair.
        pass
    await cat.me.publish_data("heard")
    await bob.receives("heard")
    assert [packet.data for packet in bob.packets] == [b"heard"]


async def test_data_of_the_host_has_no_sender(company, room_api, room):
    ann, bob = await company("ann", "bob")

    async def send(data: bytes, *to: str) -> None:
        kind = api.DataPacket.Kind.RELIABLE
        await room_api.send_data(
            api.SendDataRequest(room=room, data=data, kind=kind, topic="host", destination_identities=to)
        )

    await send(b"for bob", "bob")
    await send(b"for all")
    packet = await bob.receives("for bob")
    assert (packet.participant, packet.topic) == (None, "host")
    await asyncio.gather(ann.receives("for all"), bob.receives("for all"))
    assert [packet.data for packet in ann.packets] == [b"for all"]
