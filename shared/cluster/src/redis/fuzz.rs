//! The fuzz target of what stands in Redis.

use plenary_model::NodeInfo;
use prost::Message;

use super::{values::stored_ban, wire};

/// Whatever stands in Redis: one kind of message for each first byte. What is understood is written and understood again.
#[expect(clippy::expect_used, reason = "a target panics when something is wrong")]
pub(crate) fn read_anything(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 7 {
        0 => {
            if let Ok(record) = wire::record(bytes) {
                let again = wire::record(&wire::Record::from(&*record).encode_to_vec());
                assert_eq!(again.expect("it was understood"), record);
            }
        }
        1 => {
            drop(wire::room_delta(bytes));
            drop(wire::happening(bytes).map(|happening| happening.occurrences()));
        }
        2 => {
            drop(wire::room_info(bytes));
            if let Ok(egress) = wire::egress(bytes) {
                let again = wire::egress(&wire::Egress::from(&egress).encode_to_vec());
                assert_eq!(again.expect("it was understood"), egress);
            }
        }
        3 => {
            if let Ok(entry) = wire::ban_entry(bytes) {
                let again = wire::ban_entry(&wire::BanEntry::from(&entry).encode_to_vec());
                assert_eq!(again.expect("it was understood"), entry);
            }
        }
        4 => {
            let letter = wire::decode::<wire::Letter>(bytes).ok().and_then(|letter| letter.words);
            let words = wire::decode::<wire::Words>(bytes).ok().into_iter().chain(letter).flat_map(|said| said.words);
            for word in words.filter_map(|word| word.into_model().ok()) {
                let again = wire::words::Word::from(&word).into_model().expect("it was understood");
                // A score that is no number is not equal to itself.
                assert_eq!(format!("{again:?}"), format!("{word:?}"));
            }
        }
        5 => {
            if let Ok(request) = wire::decode::<wire::Command>(bytes).and_then(wire::Command::into_model) {
                let again = wire::Command::new(&request).into_model();
                assert_eq!(again.expect("it was understood"), request);
            }
        }
        _ => {
            if let Ok(info) = wire::decode::<wire::NodeInfo>(bytes) {
                let info = NodeInfo::from(info);
                let again = NodeInfo::from(wire::NodeInfo::from(&info));
                assert_eq!(again, info);
            }
            let text = String::from_utf8_lossy(bytes);
            if let Some((field, line)) = text.split_once('\n') {
                drop(stored_ban(field, line));
            }
        }
    }
}
