//! A cluster in a real Redis keeps every promise, and a few of its own.

mod server;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use plenary_cluster::{
    Bans, Bus, BusError, Changed, Event, LEASE_LIFE, Lost, Reaped, Redis, RedisConfig, Request, RoomEvent, Seat, Store,
    StoreError,
    conformance::{self, DESTINATIONS, identity, name, new_room, node},
    conformance_suite,
};
use plenary_model::*;

use server::{Server, redis};

conformance_suite!(Arc::new(redis(&[]).await));
conformance_suite!(outboxes: Arc::new(redis(&DESTINATIONS).await));

#[tokio::test]
async fn people_of_a_node_whose_lease_ran_out_are_removed_by_one_other_node() {
    let server = Server::start();
    let cluster = server.config();
    let [alive, other] = [0, 1].map(|_| Redis::new(cluster.clone()).unwrap());
    for id in ["ND_dead", "ND_1"] {
        alive.renew(info(id)).await.unwrap();
    }
    let ann = alive.join(name("r"), seat("ann", "ND_dead")).await.unwrap().record;
    alive.join(name("r"), seat("bob", "ND_1")).await.unwrap();
    let mut heard = other.subscribe(name("r")).await.unwrap();
    alive.join(name("s"), Seat { create: Some(new_room("s", 1)), ..seat("cat", "ND_dead") }).await.unwrap();
    assert_eq!(alive.reap().await, Ok(Reaped::default()), "its lease still runs");
    lives_on(&alive).await;
    let (first, second) = tokio::join!(alive.reap(), other.reap());
    let mut reaped = [first.unwrap(), second.unwrap()];
    reaped.sort_by_key(|reaped| reaped.nodes.len());
    let all = Reaped { nodes: vec!["ND_dead".into()], deserted: vec![name("s")] };
    assert_eq!(reaped, [Reaped::default(), all], "somebody is left in the other room");
    let Some(RoomEvent::Delta(delta)) = heard.next().await else { panic!("it was told") };
    let reason = LeaveReason::ConnectionTimeout;
    let (identity, sid, generation) = (identity("ann"), ann.participant.sid.clone(), ann.generation);
    assert_eq!(delta.change, RoomChange::Removed { identity, sid, generation, reason });
    assert_eq!(other.snapshot(name("r")).await.unwrap().records.len(), 1);
    assert!(!alive.renew(info("ND_dead")).await.unwrap().was_held, "it is told when it wakes");
}

/// Until other leases, last renewed just now, have run out.
async fn lives_on(cluster: &Redis) {
    for _ in 0..3 {
        tokio::time::sleep(LEASE_LIFE / 3).await;
        cluster.renew(info("ND_1")).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn people_of_a_node_that_died_without_a_lease_are_removed_at_every_server() {
    let [one, two] = [Server::start(), Server::start()];
    let mut config = one.config();
    config.urls.extend(two.config().urls);
    let cluster = Redis::new(config).unwrap();
    let rooms: Vec<_> = (0..8).map(|number| format!("room-{number}")).collect();
    // As after a wipe: it puts its people back, or takes more, and dies before it renews.
    for room in &rooms {
        let create = Some(new_room(room, 1));
        cluster.join(name(room), Seat { create: create.clone(), ..seat("ann", "ND_dead") }).await.unwrap();
        cluster.join(name(room), Seat { create, ..seat("bob", "ND_1") }).await.unwrap();
    }
    let (mut reaped, mut rounds) = (Vec::new(), 0);
    while reaped.is_empty() && rounds < 20 {
        cluster.renew(info("ND_1")).await.unwrap();
        reaped = cluster.reap().await.unwrap().nodes;
        rounds += 1;
        tokio::time::sleep(LEASE_LIFE / 3).await;
    }
    assert_eq!(reaped, [NodeId::from("ND_dead")]);
    assert!(rounds > 3, "a node that has just come has a moment to take a lease");
    cluster.renew(info("ND_1")).await.unwrap();
    assert_eq!(cluster.reap().await, Ok(Reaped::default()));
    for room in &rooms {
        let records = cluster.snapshot(name(room)).await.unwrap().records;
        assert!(matches!(&records[..], [bob] if bob.node == node("ND_1")), "{room}: {records:?}");
    }
}

#[tokio::test]
async fn nobody_is_taken_for_dead_because_the_server_was_away() {
    let server = Server::start();
    let cluster = Redis::new(server.config()).unwrap();
    for id in ["ND_1", "ND_2"] {
        cluster.renew(info(id)).await.unwrap();
    }
    cluster.join(name("r"), seat("ann", "ND_2")).await.unwrap();
    // Nobody can renew.
    tokio::time::sleep(LEASE_LIFE + Duration::from_millis(100)).await;
    let nodes = cluster.renew(info("ND_1")).await.unwrap().nodes;
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    assert_eq!(cluster.reap().await, Ok(Reaped::default()));
    assert_eq!(cluster.snapshot(name("r")).await.unwrap().records.len(), 1);
    lives_on(&cluster).await;
    assert_eq!(cluster.reap().await.unwrap().nodes, [NodeId::from("ND_2")], "it was away itself");
}

#[tokio::test]
async fn a_wiped_server_gets_its_rooms_back() {
    let server = Server::start();
    let cluster = Redis::new(server.config()).unwrap();
    cluster.renew(info("ND_1")).await.unwrap();
    let ann = cluster.join(name("r"), seat("ann", "ND_1")).await.unwrap();
    let bob = cluster.join(name("r"), seat("bob", "ND_2")).await.unwrap();
    server.ask("FLUSHALL").await;
    assert_eq!(cluster.snapshot(name("r")).await, Err(StoreError::NoSuchRoom));
    assert!(!cluster.renew(info("ND_1")).await.unwrap().was_held);
    let RoomSnapshot { view, seq, room: info, .. } = bob.snapshot;
    for own in [ann.record, bob.record.clone()] {
        let lost = Lost { view, seq, info: info.clone(), records: vec![own] };
        assert_eq!(cluster.restore(name("r"), lost).await, Ok(Vec::new()));
    }
    let back = cluster.snapshot(name("r")).await.unwrap();
    assert_eq!((back.view, back.seq, back.room), (view, seq + 2, info), "the history goes on");
    assert_eq!(back.records.len(), 2);
    let next = cluster.join(name("r"), seat("bob", "ND_1")).await.unwrap();
    assert!(next.record.generation > bob.record.generation);
}

#[tokio::test]
async fn a_wiped_server_gets_its_bans_back_from_a_copy() {
    let server = Server::start();
    let cluster = Redis::new(server.config()).unwrap();
    let ban = |who: &str, before| Ban {
        identity: identity(who),
        room: Some(name("r")),
        tokens_before_unix_s: before,
        until_unix_s: 100,
    };
    for one in [ban("ann", None), ban("bob", Some(50)), ban("cat", None)] {
        cluster.ban(one, 10).await.unwrap();
    }
    let mut behind = Bans::from_list(cluster.bans(10).await.unwrap(), 10);
    cluster.lift_ban(identity("cat"), Some(name("r"))).await.unwrap();
    let stored = cluster.bans(10).await.unwrap();
    let mut copy = Bans::from_list(stored.clone(), 10);
    server.ask("FLUSHALL").await;
    // One that had not heard of the end of a ban is not the last word.
    for copy in [&mut behind, &mut copy] {
        let lost = copy.reconcile(cluster.bans(10).await.unwrap(), 10);
        cluster.restore_bans(lost, 10).await.unwrap();
    }
    assert_eq!(cluster.bans(10).await, Ok(stored));
    assert_eq!(copy.reconcile(cluster.bans(10).await.unwrap(), 10), []);
    let of = |who: &str, issued_unix_s| Seat { issued_unix_s, ..seat(who, "ND_1") };
    assert_eq!(cluster.join(name("r"), of("ann", None)).await, Err(StoreError::Banned));
    assert_eq!(cluster.join(name("r"), of("bob", Some(49))).await, Err(StoreError::Revoked));
    assert!(cluster.join(name("r"), of("cat", None)).await.is_ok());
}

#[tokio::test]
async fn a_cut_subscription_is_made_again_and_says_that_something_may_be_missing() {
    let server = Server::start();
    let cluster = Redis::new(server.config()).unwrap();
    let mut heard = cluster.subscribe(name("r")).await.unwrap();
    server.ask("CLIENT KILL TYPE pubsub").await;
    assert_eq!(heard.next().await, Some(RoomEvent::Resync));
    cluster.join(name("r"), seat("ann", "ND_1")).await.unwrap();
    assert!(matches!(heard.next().await, Some(RoomEvent::Delta(_))));
}

#[tokio::test]
async fn calls_end_while_the_server_is_away_and_succeed_when_it_is_back() {
    let mut server = Server::start();
    let cluster = Redis::new(server.config()).unwrap();
    cluster.join(name("r"), seat("ann", "ND_1")).await.unwrap();
    let mut heard = cluster.subscribe(name("r")).await.unwrap();
    server.stop();
    for _ in 0..3 {
        let asked = Instant::now();
        assert_eq!(cluster.snapshot(name("r")).await, Err(StoreError::Unavailable));
        assert!(asked.elapsed() < Duration::from_secs(5), "far more than the limit: this only shows that there is one");
    }
    server.start_again();
    let mut tries = 0;
    while cluster.snapshot(name("r")).await != Err(StoreError::NoSuchRoom) {
        tries += 1;
        assert!(tries < 100, "it is back, and empty");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(heard.next().await, Some(RoomEvent::Resync));
}

#[tokio::test]
async fn a_request_without_the_clusters_seal_is_not_carried_out() {
    let server = Server::start();
    let config = server.config();
    let node = NodeId::from("ND_1");
    let ours = Redis::new(config.clone()).unwrap();
    let mut inbox = ours.serve(node.clone()).await.unwrap();
    let forger =
        Redis::new(RedisConfig { keys: vec![b"another key".to_vec()], instance: "forger".into(), ..config }).unwrap();
    let ask = || Request { room: name("r"), what: Admin::Remove { identity: identity("ann") }, trace: None };
    let (forged, real) = (forger.request(node.clone(), ask()), ours.request(node, ask()));
    let answer = async {
        let (_, reply) = inbox.next().await.unwrap();
        reply.send(Ok(None)).unwrap();
        inbox.next().await
    };
    tokio::select! {
        (forged, real) = async { tokio::join!(forged, real) } => {
            assert_eq!((forged, real), (Err(BusError::Timeout), Ok(Ok(None))));
        }
        _ = answer => panic!("the forged one was carried out"),
    }
}

#[tokio::test]
async fn words_that_are_said_again_are_heard_once() {
    let server = Server::start();
    let cluster = Redis::new(server.config()).unwrap();
    let mut heard = cluster.hear(name("r"), "ND_1".into()).await.unwrap();
    let word = |track: &str| RoomWord::Bound { track: track.into() };
    for (number, track) in [(1, "TR_1"), (1, "TR_1"), (2, "TR_2")] {
        cluster.say(name("r"), "ND_2".into(), number, vec![word(track)]).await.unwrap();
    }
    for track in ["TR_1", "TR_2"] {
        assert_eq!(heard.next().await, Some(Event::Delta(Arc::new(word(track)))));
    }
}

#[tokio::test]
async fn words_are_heard_once_whether_the_bus_brings_them_or_a_letter() {
    let mut server = Server::start();
    let cluster = Redis::new(server.config()).unwrap();
    let (own, other) = ("ND_1".into(), "ND_2".into());
    let mut heard = cluster.hear(name("r"), own).await.unwrap();
    let mut elsewhere = cluster.hear(name("s"), "ND_1".into()).await.unwrap();
    let word = |track: &str| RoomWord::Bound { track: track.into() };
    let letter = |number, track| cluster.letter(&name("r"), &other, number, &[word(track)]).unwrap();
    cluster.read_letter(&letter(1, "TR_1"));
    assert_eq!(cluster.say(name("r"), "ND_2".into(), 1, vec![word("TR_1")]).await, Ok(1), "one node hears the room");
    assert_eq!(cluster.say(name("r"), "ND_2".into(), 2, vec![word("TR_2")]).await, Ok(1));
    for track in ["TR_1", "TR_2"] {
        assert_eq!(heard.next().await, Some(Event::Delta(Arc::new(word(track)))));
    }
    server.stop();
    cluster.read_letter(&letter(2, "TR_2"));
    cluster.read_letter(&letter(3, "TR_3"));
    cluster.read_letter(b"nonsense");
    assert_eq!(heard.next().await, Some(Event::Delta(Arc::new(word("TR_3")))));
    assert!(!matches!(elsewhere.try_next(), Some(Event::Delta(_))));
}

#[tokio::test]
async fn rooms_are_spread_over_servers_and_bans_for_all_hold_on_each() {
    let [one, two] = [Server::start(), Server::start()];
    let mut config = one.config();
    config.urls.extend(two.config().urls);
    let cluster = Redis::new(config).unwrap();
    let names: Vec<_> = (0..16).map(|number| format!("room-{number}")).collect();
    let mut heard = cluster.subscribe_bans().await.unwrap();
    for room in &names {
        cluster.join(name(room), Seat { create: Some(new_room(room, 1)), ..seat("ann", "ND_1") }).await.unwrap();
    }
    assert_eq!(cluster.rooms(Vec::new()).await.unwrap().len(), 16);
    let ban = Ban { identity: identity("eve"), room: None, tokens_before_unix_s: None, until_unix_s: 100 };
    cluster.ban(ban.clone(), 10).await.unwrap();
    let told = |entries| Bans::from_list(entries, 10).list(10);
    assert_eq!(cluster.bans(10).await.map(told), Ok(vec![ban.clone()]));
    for room in &names {
        assert_eq!(cluster.join(name(room), seat("eve", "ND_1")).await, Err(StoreError::Banned));
    }
    two.ask("FLUSHALL").await;
    assert_eq!(cluster.bans(10).await.map(told), Ok(vec![ban]), "whoever looks mends what one server lost");
    one.ask("FLUSHALL").await;
    assert_eq!(cluster.lift_ban(identity("eve"), None).await, Ok(true), "wherever it is");
    for until in [100, 0] {
        let Some(Event::Delta(told)) = heard.next().await else { panic!("told") };
        assert_eq!(told.banned_until_unix_s, until, "told once");
    }
    let sizes = [one.ask("DBSIZE").await, two.ask("DBSIZE").await];
    assert!(sizes.iter().all(|size| size.starts_with("int(") && size != "int(0)"), "{sizes:?}");
}

#[tokio::test]
async fn what_cannot_be_read_in_an_outbox_holds_up_nothing() {
    let server = Server::start();
    let cluster = Redis::new(RedisConfig { destinations: vec!["one".into()], ..server.config() }).unwrap();
    cluster.create(new_room("r", 1)).await.unwrap();
    let keys = server.ask("KEYS *}:w:one").await;
    let outbox = keys.split('\'').nth(1).unwrap().trim_matches(['"', '\\']);
    server.ask(&format!("XADD {outbox} * h nonsense")).await;
    assert_eq!(server.ask(&format!("XLEN {outbox}")).await, "int(2)");
    cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    let lease = cluster.lease_outboxes("one", 9).await.unwrap().outboxes.remove(0);
    let started = cluster.next_happening(lease.clone(), None).await.unwrap().unwrap();
    assert_eq!(started.happening.what, Changed::Started);
    let finished = cluster.next_happening(lease.clone(), Some(started.entry)).await.unwrap().unwrap();
    assert_eq!(finished.happening.what, Changed::Finished { reason: LeaveReason::RoomDeleted });
    assert_eq!(cluster.next_happening(lease, Some(finished.entry)).await, Ok(None));
    assert_eq!(server.ask("KEYS *}:w:*").await, "array([])", "nothing is left of the room");
}

fn seat(who: &str, at: &str) -> Seat {
    Seat { node: node(at), now_unix_s: 10, ..conformance::seat(who, &format!("PA_{who}_{at}")) }
}

fn info(node: &str) -> NodeInfo {
    NodeInfo {
        node: node.into(),
        version: String::new(),
        state: NodeState::Serving,
        routers: Vec::new(),
        records: false,
    }
}
