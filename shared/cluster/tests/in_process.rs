//! The in-process cluster keeps every promise, and a few of its own.

use std::{sync::Arc, task::Poll};

use plenary_cluster::{
    Bus, BusError, InProcess, OUTBOX_LEASE_LIFE, Request, Store, StoreError, conformance, conformance::DESTINATIONS,
    conformance_suite,
};
use plenary_model::{Admin, Identity, NodeId, RoomName};

conformance_suite!(Arc::new(InProcess::new()));
conformance_suite!(outboxes: Arc::new(InProcess::telling(DESTINATIONS.map(Into::into))));

/// The one that simulations use.
mod timed {
    use super::*;

    conformance_suite!(Arc::new(InProcess::timed(1_700_000_000_000)));
}

#[tokio::test]
async fn an_outbox_whose_lease_ran_out_goes_to_another() {
    let cluster = InProcess::telling(DESTINATIONS.map(Into::into));
    let now_ms = 1_700_000_000_000;
    let life_ms = OUTBOX_LEASE_LIFE.as_millis() as u64;
    cluster.set_time(now_ms);
    cluster.create(conformance::new_room("r", 1)).await.unwrap();
    let first = cluster.lease_outboxes("one", 9).await.unwrap().outboxes.remove(0);
    cluster.set_time(now_ms + life_ms - 1);
    let waiting = cluster.next_happening(first.clone(), None).await.unwrap().unwrap();
    cluster.set_time(now_ms + 2 * life_ms - 2);
    assert_eq!(cluster.lease_outboxes("one", 9).await.unwrap().outboxes, [], "using it renews it");
    cluster.set_time(now_ms + 2 * life_ms - 1);
    let second = cluster.lease_outboxes("one", 9).await.unwrap().outboxes.remove(0);
    let done = Some(waiting.entry.clone());
    assert_eq!(cluster.next_happening(first, done).await, Err(StoreError::Superseded), "it undoes nothing");
    assert_eq!(cluster.next_happening(second, None).await, Ok(Some(waiting)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_times_out() {
    let cluster = InProcess::new();
    let mut inbox = cluster.serve(NodeId::from("ND_1")).await.unwrap();
    let asked = cluster.request(NodeId::from("ND_1"), ask());
    let unanswered = async {
        let held = inbox.next().await.unwrap();
        std::future::pending::<()>().await;
        drop(held);
    };
    tokio::select! {
        answer = asked => assert_eq!(answer, Err(BusError::Timeout)),
        () = unanswered => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_inbox_are_refused_at_once() {
    let cluster = InProcess::new();
    let _unread = cluster.serve(NodeId::from("ND_1")).await.unwrap();
    let mut asked: Vec<_> = (0..1000).map(|_| cluster.request(NodeId::from("ND_1"), ask())).collect();
    let refused = std::future::poll_fn(|context| {
        let answers = asked.iter_mut().map(|asked| asked.as_mut().poll(context));
        Poll::Ready(answers.filter(|answer| *answer == Poll::Ready(Err(BusError::Unavailable))).count())
    });
    let refused = refused.await;
    assert!((1..1000).contains(&refused), "{refused}");
}

#[tokio::test]
async fn dead_subscriptions_make_place() {
    let cluster = InProcess::new();
    for _ in 0..1000 {
        drop(cluster.subscribe(room()).await.unwrap());
    }
    let mut held = Vec::new();
    let refused = loop {
        match cluster.subscribe(room()).await {
            Ok(subscription) => held.push(subscription),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, BusError::Unavailable);
    held.pop();
    cluster.subscribe(room()).await.expect("one place is free again");
}

fn room() -> RoomName {
    RoomName::try_from("r").unwrap()
}

fn ask() -> Request {
    Request { room: room(), what: Admin::Remove { identity: Identity::try_from("ann").unwrap() }, trace: None }
}
