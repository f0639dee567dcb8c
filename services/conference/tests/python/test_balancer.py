"""Three nodes behind HAProxy, as they are meant to be run: where people land, and how they come back."""

import asyncio
import os
import time

import aiohttp
import pytest
from livekit.protocol.rtc import SignalResponse

from balancer import Balancer, checked
from harness import KEY, SECRET, Server, until
from livekit import api
from media import BLUE, RED, Ear
from people import Person

NODES = 3
# A figure needs more of them than a test.
KILLS = int(os.environ.get("PLENARY_KILLS", "1"))


@pytest.fixture(scope="module")
def balancers(cluster):
    running = {"placed": Balancer(cluster.nodes), "in turn": Balancer(cluster.nodes, in_turn=True)}
    yield running
    for one in running.values():
        one.close()


@pytest.fixture
def placed(balancers) -> Balancer:
    """People of one room go to one node."""
    return balancers["placed"]


@pytest.fixture
def in_turn(balancers) -> Balancer:
    return balancers["in turn"]


def test_haproxy_accepts_the_shipped_configuration():
    assert checked() == ""


async def test_people_of_one_room_land_on_one_node_and_rooms_on_all(cluster, placed, room):
    hosts = {}
    for number in range(24):
        name = f"{room}-{number}"
        tokens = [cluster.nodes[0].token(name, identity) for identity in ("ann", "bob", "cat", "dan")]
        ways = [in_query, in_query, in_header, in_header]
        hosts[name] = {await landing(way(placed.url, token)) for way, token in zip(ways, tokens)}
    assert all(len(nodes) == 1 for nodes in hosts.values()), hosts
    assert len(set.union(*hosts.values())) == 3, hosts


async def test_a_token_without_a_room_is_answered_all_the_same(placed, join, room):
    await join("ann", placed)
    for _ in range(3):
        async with api.LiveKitAPI(placed.http, KEY, SECRET) as client:
            (found,) = (await client.room.list_rooms(api.ListRoomsRequest(names=[room]))).rooms
            assert found.num_participants == 1
    async with aiohttp.ClientSession() as session:
        for token in ("", "nonsense", "a.b.c"):
            async with session.get(f"{placed.http}/rtc/validate?access_token={token}") as refused:
                assert refused.status == 401


async def test_people_who_part_over_all_nodes_hear_and_see_each_other(in_turn, join):
    ann, bob, cat = [await join(identity, in_turn) for identity in ("ann", "bob", "cat")]
    assert len({host_of(one.me.sid) for one in (ann, bob, cat)}) == 3
    await asyncio.gather(ann.publish_tone(440), bob.publish_tone(880), cat.publish_colour(BLUE), ann.publish_colour(RED))
    await asyncio.gather(
        bob.hears("ann", 440), cat.hears("ann", 440), ann.hears("bob", 880), cat.hears("bob", 880),
        ann.sees("cat", BLUE), bob.sees("cat", BLUE), bob.sees("ann", RED), cat.sees("ann", RED),
    )  # fmt: skip


async def test_a_balancer_that_is_started_anew_costs_nobody_their_session(placed, join):
    ann, bob = await asyncio.gather(join("ann", placed), join("bob", placed))
    await asyncio.gather(ann.publish_tone(440), bob.publish_tone(880))
    await asyncio.gather(bob.hears("ann", 440), ann.hears("bob", 880))
    sids = [ann.me.sid, bob.me.sid]
    placed.kill()
    await asyncio.to_thread(placed.start)
    await asyncio.gather(ann.event("reconnected"), bob.event("reconnected"))
    assert [ann.me.sid, bob.me.sid] == sids
    await asyncio.gather(bob.hears("ann", 440), ann.hears("bob", 880))


async def test_people_of_a_node_that_is_killed_come_back_through_another(cluster, in_turn, join, room):
    """Their SDKs' own doing. How long it takes until all are heard again both ways is printed."""
    tones = {f"p{number}": 400 + 100 * number for number in range(4)}
    people = {identity: await join(identity, in_turn) for identity in tones}
    await asyncio.gather(*(one.publish_tone(tones[identity]) for identity, one in people.items()))
    await all_hear_all(people, tones)
    marks = [await mark_of(node) for node in cluster.nodes]
    seconds: list[float] = []
    silences: list[float] = []
    for _ in range(KILLS):
        hosts = await hosts_of(cluster.nodes[0], room)
        crowds = [{identity for identity, host in hosts.items() if host == mark} for mark in marks]
        dying = max(range(3), key=lambda node: len(crowds[node]))
        victims = crowds[dying]
        # By now they may all be there.
        people["witness"] = await join("witness", cluster.nodes[dying - 1])
        tones["witness"] = 1000
        await people["witness"].publish_tone(tones["witness"])
        await all_hear_all(people, tones)
        rest = people.keys() - victims
        before = {identity: {**one.ears} for identity, one in people.items()}
        for ear in (ear for ears in before.values() for ear in ears.values()):
            ear.mark()
        killed = time.monotonic()
        cluster.nodes[dying].kill()
        for victim in victims:
            pairs = [(victim, other) for other in rest] + [(other, victim) for other in rest]
            ears = [await new_ear(people[here], people[there], before[here]) for here, there in pairs]
            seconds.append(max(ear.heard_since for ear in ears) - killed)
        await all_hear_all(people, tones)
        for here in rest:
            for there in rest - {here}:
                ear = people[here].ears[there]
                assert ear is before[here][there], "nothing was subscribed anew"
                silences.append(longest_silence(ear))
        await people.pop("witness").close()
        cluster.nodes[dying] = await asyncio.to_thread(cluster.node, cluster.nodes[dying].port)
        marks[dying] = await mark_of(cluster.nodes[dying])
        await until("it is used again", lambda: asyncio.to_thread(in_turn.uses, dying + 1))
    seconds.sort()
    of_100 = lambda share: seconds[min(len(seconds) - 1, len(seconds) * share // 100)]
    print(f"\n{len(seconds)} were back after p50 {of_100(50):.2f} s, p95 {of_100(95):.2f} s, max {seconds[-1]:.2f} s: "
          f"{' '.join(f'{one:.2f}' for one in seconds)}; the others' longest silence was {max(silences):.1f} s")  # fmt: skip


async def test_who_asks_before_a_dead_node_is_noticed_is_taken_by_another(cluster, in_turn, room):
    ways = [in_query(in_turn.url, cluster.nodes[1].token(room, f"p{number}")) for number in range(6)]
    cluster.nodes[0].kill()
    hosts = await asyncio.gather(*(landing(way) for way in ways))
    assert set(hosts) <= {await mark_of(node) for node in cluster.nodes[1:]}
    cluster.nodes[0] = await asyncio.to_thread(cluster.node, cluster.nodes[0].port)
    await until("it is used again", lambda: asyncio.to_thread(in_turn.uses, 1))


async def test_no_token_is_ever_logged(cluster, placed, room):
    token = cluster.nodes[0].token(room, "ann")
    for way in (in_query, in_header):
        await landing(way(placed.url, token))
    async with aiohttp.ClientSession() as session:
        for path in ("/rtc/validate", "/nowhere", "/a b"):
            async with session.get(f"{placed.http}{path}?access_token={token}"):
                pass
    reader, writer = await asyncio.open_connection("127.0.0.1", placed.port)
    writer.write(f"GET /rtc?access_token={token} HTTP/9.9\r\nno colon\r\n\r\n".encode())
    await reader.read()
    writer.close()
    await until("it is logged", lambda: "GET /rtc/validate" in placed.log and "BADREQ" in placed.log)
    assert "access_token" not in placed.log
    assert not any(part in placed.log for part in token.split("."))


def in_query(url: str, token: str) -> tuple[str, dict[str, str]]:
    return f"{url}/rtc?protocol=16&access_token={token}", {}


def in_header(url: str, token: str) -> tuple[str, dict[str, str]]:
    return f"{url}/rtc?protocol=16", {"Authorization": f"Bearer {token}"}


async def landing(way: tuple[str, dict[str, str]]) -> str:
    """The node that took this join."""
    url, headers = way
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
        first = SignalResponse.FromString((await asyncio.wait_for(socket.receive(), 5)).data)
        return host_of(first.join.participant.sid)


def host_of(sid: str) -> str:
    """The node's mark in a session's id."""
    return sid[3:15]


async def mark_of(node: Server) -> str:
    return await landing(in_query(node.url, node.token("elsewhere", "probe")))


async def hosts_of(node: Server, room: str) -> dict[str, str]:
    async with node.room_api() as client:
        listed = await client.room.list_participants(api.ListParticipantsRequest(room=room))
    return {one.identity: host_of(one.sid) for one in listed.participants}


async def new_ear(listener: Person, speaker: Person, before: dict[str, Ear]) -> Ear:
    def found() -> Ear | None:
        ear = listener.ears.get(speaker.identity)
        return ear if ear and ear is not before.get(speaker.identity) and ear.heard_since else None

    return await until(f"{listener.identity} hears {speaker.identity} anew", found, 30)


def longest_silence(ear: Ear) -> float:
    silences = "".join("." if rms < 0.1 else "#" for rms in ear.tenths).split("#")
    return max(map(len, silences)) / 10


async def all_hear_all(people: dict[str, Person], tones: dict[str, float]) -> None:
    # One after the other: the analysis of all at once would leave no time to play the tones.
    for here, one in people.items():
        for there in people.keys() - {here}:
            await one.hears(there, tones[there])
