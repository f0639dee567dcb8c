"""What a call costs Redis: round trips of a join, and commands while nothing happens."""

import asyncio
from collections import Counter

import aiohttp
import pytest

from harness import Server

NODES = 2
PEOPLE = 4
WATCHED_SECONDS = 20
# Beyond what nodes cost by themselves; the hosts of a room touch it three times a minute, whoever is in it.
PER_PERSON_AND_MINUTE_MAX = 3
# The lease, and a look at who else has one, each second.
PER_NODE_AND_MINUTE_MAX = 130


async def asked(node: Server) -> Counter:
    """How often a node has asked Redis for what, as it says itself."""
    prefix = "plenary_redis_command_duration_seconds_count{"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{node.metrics_port}/metrics") as page:
            lines = (await page.text()).splitlines()
    counts: Counter = Counter()
    for line in lines:
        if line.startswith(prefix):
            counts[line.split('command="')[1].split('"')[0]] += int(float(line.rsplit(" ", 1)[1]))
    return counts


async def test_a_join_waits_for_one_answer_of_redis(cluster, join, room):
    # For the first on each node the room is subscribed to besides, on the connection that listens.
    for at, identity in [(0, "ann"), (0, "bob"), (1, "cat"), (1, "dan")]:
        node = cluster.nodes[at]
        before = await asked(node)
        await join(identity, node)
        spent = await asked(node) - before
        # Being there is another change, which nobody waits for; leases and touches come and go.
        for other in ("put", "renew", "expired", "list_bans", "list_hosted", "hosted", "touch", "publish", "audience"):
            del spent[other]
        print(identity, dict(spent))
        assert dict(spent) == {"join": 1}, identity


@pytest.mark.timeout(240)
async def test_a_call_in_which_nothing_happens_costs_redis_little(cluster, join, record_property):
    async def commands() -> float:
        """Per minute, of all nodes."""
        before = [await asked(node) for node in cluster.nodes]
        await asyncio.sleep(WATCHED_SECONDS)
        spent = [(await asked(node)) - then for node, then in zip(cluster.nodes, before)]
        print([dict(one) for one in spent])
        return sum(one.total() for one in spent) * 60 / WATCHED_SECONDS

    idle = await commands()
    people = await asyncio.gather(*(join(f"p{number}", cluster.nodes[number % 2]) for number in range(PEOPLE)))
    await asyncio.gather(*(person.publish_tone(300 + 50 * at) for at, person in enumerate(people)))
    await asyncio.gather(*(person.knows(*(one for one in people if one is not person)) for person in people))
    # What a publication brings with it is over.
    await asyncio.sleep(10)
    busy = await commands()
    per_node, per_person = idle / len(cluster.nodes), (busy - idle) / PEOPLE
    record_property("redis_commands_per_node_and_minute", per_node)
    record_property("redis_commands_per_person_and_minute", per_person)
    print(f"{per_node:.1f} per node and minute, {per_person:.1f} more per person and minute")
    assert per_node <= PER_NODE_AND_MINUTE_MAX
    assert per_person <= PER_PERSON_AND_MINUTE_MAX


async def test_what_nodes_count_is_what_redis_counts(cluster, join):
    cluster.redis.ask("CONFIG", "RESETSTAT")
    before = [await asked(node) for node in cluster.nodes]
    await join("ann", 0)
    await asyncio.sleep(2)
    own = Counter()
    for node, then in zip(cluster.nodes, before):
        own += await asked(node) - then
    scripts = own.total() - own["publish"] - own["audience"]
    (line,) = (one for one in cluster.redis.ask("INFO", "commandstats").splitlines() if "_evalsha:" in one)
    calls = int(line.split("calls=")[1].split(",")[0])
    # Renewals may fall between the readings.
    assert abs(calls - scripts) <= 4, (calls, own)
