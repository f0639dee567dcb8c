//! What nodes have their routers tell each other besides media.

use plenary_media_core::{Command, DropReason, Event};
use plenary_testkit::Conditions;

use super::*;

fn write(cluster: &mut Cluster, from: usize, to: usize, number: u64, letter: &[u8]) {
    let (to, letter) = (cluster.id(to), letter.to_vec().into());
    cluster.worlds[from].command(Command::WriteLetter { to, number, letter });
}

fn came(cluster: &Cluster, at: usize) -> Vec<Vec<u8>> {
    let letter = |(_, event): &(_, Event)| match event {
        Event::LetterCame { letter } => Some(letter.to_vec()),
        _ => None,
    };
    cluster.worlds[at].events.iter().filter_map(letter).collect()
}

fn told(cluster: &Cluster, at: usize) -> Vec<u64> {
    let number = |(_, event): &(_, Event)| match event {
        Event::LetterTold { number } => Some(*number),
        _ => None,
    };
    cluster.worlds[at].events.iter().filter_map(number).collect()
}

#[test]
fn a_letter_opens_the_link_that_it_needs_and_lets_it_go() {
    let mut cluster = Cluster::seeded(seed(260), 2);
    write(&mut cluster, 0, 1, 1, b"good morning");
    cluster.run_for(SECOND);
    assert_eq!((came(&cluster, 1), told(&cluster, 0)), (vec![b"good morning".to_vec()], vec![1]));
    cluster.run_for(40 * SECOND);
    assert_eq!(link_events(&cluster, 0), [None, Some(LinkEnd::Idle)]);
}

#[test]
fn large_letters_cross_a_link_that_loses_a_fifth_beside_a_call() {
    let mut apart = Apart::flowing(261);
    for (from, to) in [(0, 1), (1, 0)] {
        apart.cluster.set(from, to, Conditions { duplicate: 0.1, ..Conditions::lossy(0.2) });
    }
    let letter = |number: u64| vec![number as u8; 200_000 + number as usize];
    (1..=4).for_each(|number| write(&mut apart.cluster, 1, 0, number, &letter(number)));
    apart.cluster.run_for(3 * SECOND);
    let mut came = came(&apart.cluster, 0);
    came.sort();
    // One whose receipt was lost came again.
    came.dedup();
    let lengths: Vec<_> = came.iter().map(Vec::len).collect();
    assert!(came == (1..=4).map(letter).collect::<Vec<_>>(), "{lengths:?} bytes came");
    let mut told = told(&apart.cluster, 1);
    told.sort();
    assert_eq!(told, [1, 2, 3, 4]);
    apart.cluster.set(0, 1, Conditions::default());
    apart.cluster.set(1, 0, Conditions::default());
    apart.cluster.run_for(2 * SECOND);
    apart.assert_flows();
}

#[test]
fn a_letter_that_cannot_be_told_is_given_up() {
    let mut cluster = Cluster::seeded(seed(262), 2);
    cluster.cut(0, 1);
    write(&mut cluster, 0, 1, 1, b"is anybody there");
    cluster.run_for(5 * SECOND);
    cluster.heal();
    cluster.run_for(10 * SECOND);
    assert_eq!((came(&cluster, 1), told(&cluster, 0)), (vec![], vec![]));
    cluster.set_neighbours(0, &[]);
    write(&mut cluster, 0, 1, 2, b"and now");
    cluster.run_for(SECOND);
    assert_eq!(cluster.worlds[0].counters().dropped(DropReason::LinkUnknownRouter), 1);
}
