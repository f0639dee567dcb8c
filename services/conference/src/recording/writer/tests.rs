mod kills;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use plenary_model::Codec;
use plenary_recording::session_file::{Event, GapReason, SessionFile};
use tempfile::tempdir;

use super::*;
use crate::recording::{
    shelf::{self, Outcome},
    testing::{EPOCH, Fate, FatefulDisk, Meeting, STEP, config, frames},
};

fn told(root: &Path, recording: &str) -> SessionFile {
    SessionFile::read(EPOCH, &fs::read(root.join(recording).join(EPOCH.session_file())).unwrap()).unwrap()
}

#[test]
fn what_is_tapped_lies_on_the_disk_as_files_of_its_own() {
    let root = tempdir().unwrap();
    let root = &root.path().join("recordings");
    let mut meeting = Meeting::local(root);
    meeting.publish("TR_A", Codec::Opus);
    meeting.publish("TR_V", Codec::Vp8);
    meeting.steps(500).unwrap();
    let ended = meeting.stop();
    assert_eq!((ended.reason, ended.files.len()), (StopReason::Requested, 2));
    let directory = root.join("EG_local");
    for end in &ended.files {
        let path = directory.join(end.file.to_string());
        assert_eq!((end.is_complete, end.duration), (true, 500 * STEP));
        assert_eq!((fs::metadata(&path).unwrap().len(), frames(&path)), (end.bytes, 500));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 3);
    assert_eq!(told(root, "EG_local").lines.last().unwrap().event, Event::Stopped { reason: StopReason::Requested });
}

#[test]
fn without_anybody_who_holds_it_a_recording_ends() {
    let root = tempdir().unwrap();
    let (report, reports) = mpsc::channel();
    let report = move |one| drop(report.send(one));
    let started = crate::recording::testing::started("EG_x");
    drop(start(&config(root.path()), EPOCH, started, report).unwrap());
    let ended = Ended { reason: StopReason::RoomEnded, files: Vec::new() };
    assert_eq!(reports.iter().collect::<Vec<_>>(), [Report::Ended(ended)]);
}

/// A short meeting on a disk of this fate.
fn short_meeting(root: &Path, fate: &Fate) -> Meeting {
    let mut meeting = Meeting::on(FatefulDisk(fate.clone()), &config(root), "EG_x", Patience::default());
    meeting.publish("TR_A", Codec::Opus);
    meeting.publish("TR_V", Codec::Vp8);
    let _ = meeting.steps(120);
    meeting.unpublish("TR_A");
    let _ = meeting.steps(60);
    meeting
}

#[test]
fn whatever_fails_the_recording_ends_with_a_reason_and_what_was_written_can_be_read() {
    let kinds = [
        (libc::ENOSPC, StopReason::DiskFull),
        (libc::EACCES, StopReason::PermissionDenied),
        (libc::EIO, StopReason::DiskFailed),
    ];
    let root = tempdir().unwrap();
    let fate = Fate::default();
    assert!(short_meeting(root.path(), &fate).stop().files.iter().all(|end| end.is_complete));
    let operations = fate.operations();
    assert!(operations > 30, "{operations}");
    for at in 1..=operations {
        let root = tempdir().unwrap();
        let (errno, reason) = kinds[at % kinds.len()];
        let ended = short_meeting(root.path(), &Fate::failing(at, errno)).stop();
        // What fails while it ends does not change why it did.
        assert!([reason, StopReason::Requested].contains(&ended.reason), "operation {at}: {:?}", ended.reason);
        assert!(at > operations / 2 || ended.reason == reason, "operation {at}: {:?}", ended.reason);
        for left in shelf::repair_all(root.path(), || {}).unwrap() {
            assert!(matches!(left.outcome, Outcome::Repaired(_) | Outcome::Removed), "operation {at}: {left:?}");
        }
        for end in ended.files {
            let path = root.path().join("EG_x").join(end.file.to_string());
            if end.is_complete || path.exists() {
                assert!(frames(&path) > 0, "operation {at}");
            }
        }
        for listed in shelf::list(root.path()).unwrap() {
            let is_begun = listed.session.is_some();
            assert!(is_begun || listed.files.is_empty() || at < 6, "operation {at}: {listed:?}");
        }
    }
}

#[test]
fn what_was_written_before_an_error_of_the_disk_plays_but_for_two_seconds() {
    let root = tempdir().unwrap();
    let fate = Fate::default();
    let mut meeting = Meeting::on(FatefulDisk(fate.clone()), &config(root.path()), "EG_x", Patience::default());
    meeting.publish("TR_A", Codec::Opus);
    meeting.publish("TR_V", Codec::Vp8);
    meeting.steps(500).unwrap();
    meeting.settle();
    fate.fail_next(libc::EIO);
    // Until it has ended.
    while meeting.steps(50).is_ok() {
        std::thread::yield_now();
    }
    let ended = meeting.ended();
    assert_eq!((ended.reason, ended.files.len()), (StopReason::DiskFailed, 2));
    for end in ended.files {
        let kept = frames(&root.path().join("EG_x").join(end.file.to_string()));
        assert!(kept >= 400, "{kept} of 500 frames");
    }
}

#[test]
fn a_failing_disk_ends_no_other_recording() {
    let root = tempdir().unwrap();
    let mut well = Meeting::local(root.path());
    well.publish("TR_A", Codec::Opus);
    let failing = short_meeting(root.path(), &Fate::failing(12, libc::EIO));
    assert_eq!(failing.ended().reason, StopReason::DiskFailed);
    well.steps(100).unwrap();
    assert_eq!(well.stop().reason, StopReason::Requested);
}

#[test]
fn while_the_disk_hangs_packets_are_dropped_at_once_and_the_gap_is_told() {
    let root = tempdir().unwrap();
    let fate = Fate::default();
    let patience = Patience { queue_bytes_max: 20_000, ..Patience::default() };
    let mut meeting = Meeting::on(FatefulDisk(fate.clone()), &config(root.path()), "EG_x", patience);
    meeting.publish("TR_A", Codec::Opus);
    fate.hang(|| meeting.steps(60).unwrap());
    // What fits is 20,000 bytes.
    assert_eq!(meeting.steps(200), Err(NotTaken::QueueFull));
    assert!(meeting.recorder.missed[&TrackSid::from("TR_A")] > 100, "{:?}", meeting.recorder);
    let much_later = Instant::now() + STUCK_AFTER + Duration::from_secs(1);
    assert!(meeting.recorder.is_stuck(much_later) && !meeting.recorder.is_stuck(Instant::now()));
    fate.release();
    // Until there is room again.
    while meeting.steps(1).is_err() {
        std::thread::yield_now();
    }
    // Nothing is under way for much longer than a moment.
    while meeting.recorder.is_stuck(much_later) {
        std::thread::yield_now();
    }
    let ended = meeting.stop();
    assert_eq!(ended.reason, StopReason::Requested);
    let gaps: Vec<_> = told(root.path(), "EG_x")
        .lines
        .into_iter()
        .filter_map(|line| if let Event::Gap { reason, .. } = line.event { Some(reason) } else { None })
        .collect();
    assert_eq!(gaps, [GapReason::Overrun]);
}

#[test]
fn a_disk_that_takes_too_long_for_one_operation_is_too_slow() {
    let root = tempdir().unwrap();
    let patience = Patience { operation_max: Duration::ZERO, ..Patience::default() };
    let mut meeting = Meeting::on(LocalDisk, &config(root.path()), "EG_x", patience);
    meeting.publish("TR_A", Codec::Opus);
    let _ = meeting.steps(1);
    assert_eq!(meeting.ended().reason, StopReason::DiskSlow);
}

#[test]
fn below_the_floor_nothing_is_recorded() {
    let root = tempdir().unwrap();
    let config = config::Recording { free_bytes_min: u64::MAX, ..config(root.path()) };
    let meeting = Meeting::on(LocalDisk, &config, "EG_x", Patience::default());
    assert_eq!(meeting.ended(), Ended { reason: StopReason::DiskFull, files: Vec::new() });
}

#[test]
fn an_id_that_is_none_names_no_directory() {
    let root = tempdir().unwrap();
    for id in ["../EG_x", "EG_../x", "EG_", "EG_a/b", ""] {
        let meeting = Meeting::on(LocalDisk, &config(root.path()), id, Patience::default());
        assert_eq!(meeting.ended(), Ended { reason: StopReason::DiskFailed, files: Vec::new() }, "{id}");
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn what_is_written_is_synced_from_time_to_time() {
    let root = tempdir().unwrap();
    let fate = Fate::default();
    let config = config::Recording { sync_interval: Duration::from_millis(1), ..config(root.path()) };
    let mut meeting = Meeting::on(FatefulDisk(fate.clone()), &config, "EG_x", Patience::default());
    meeting.publish("TR_A", Codec::Opus);
    for syncs in 1..4 {
        meeting.steps(60).unwrap();
        fate.wait_for_syncs(syncs);
    }
    meeting.stop();
}

#[test]
fn a_recording_in_which_nothing_happens_shows_that_it_goes_on() {
    let root = tempdir().unwrap();
    let meeting = Meeting::local(root.path());
    let session = root.path().join("EG_local").join(EPOCH.session_file());
    let mut looks = (0..1_000).filter_map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let found = fs::metadata(&session).ok().filter(|found| found.len() > 0)?;
        found.modified().ok()
    });
    let written = looks.next().unwrap();
    assert!(looks.any(|modified| modified > written));
    meeting.stop();
}

#[test]
fn a_panic_is_told_and_leaves_what_can_be_repaired() {
    let root = tempdir().unwrap();
    let meeting = short_meeting(root.path(), &Fate::panicking(12));
    assert_eq!(meeting.last_word(), Report::Crashed);
    let left = shelf::repair_all(root.path(), || {}).unwrap();
    assert!(left.iter().any(|left| matches!(left.outcome, Outcome::Repaired(_))), "{left:?}");
}
