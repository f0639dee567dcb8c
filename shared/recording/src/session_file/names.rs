//! What the files of a recording are called: made from ids, and read back from a directory or from another file only in
//! the form in which they are made. No name that a person chose becomes part of a path.

use std::{fmt, str::FromStr};

use plenary_model::TrackSid;

use crate::Container;

/// Of a track's id, so that no file name gets longer than file systems take.
const TRACK_SID_BYTES_MAX: usize = 64;
const SESSION_SUFFIX: &str = ".session.jsonl";

/// One stretch of a recording by one process of Plenary: the number is from the lease under which it records and grows
/// with each, the boot tells two processes apart that both believe they have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch {
    pub number: u64,
    pub boot: u64,
}

impl Epoch {
    /// `<number>-<boot>.session.jsonl`
    pub fn session_file(self) -> String {
        format!("{self}{SESSION_SUFFIX}")
    }

    /// Undoes [`session_file`](Self::session_file); `None` for every other name.
    pub fn of_session_file(name: &str) -> Option<Self> {
        name.strip_suffix(SESSION_SUFFIX)?.parse().ok()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.boot)
    }
}

/// One file of one track.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackFile {
    epoch: Epoch,
    track: TrackSid,
    /// Counts the files of a track within an epoch, as a change of codec begins another.
    number: u32,
    container: Container,
}

/// Text that is not an id, or no file name of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not made of ids")]
pub struct NotAnId;

impl TrackFile {
    /// What stands behind the name until the file is finished.
    pub const PART: &str = ".part";

    /// Refuses a track id that is not `TR_` and letters, digits and underscores. A backup's id is one: its file is another
    /// file of the track.
    pub fn new(epoch: Epoch, track: &TrackSid, number: u32, container: Container) -> Result<Self, NotAnId> {
        let letters = track.as_str().strip_prefix("TR_").unwrap_or_default();
        let is_id = !letters.is_empty()
            && track.as_str().len() <= TRACK_SID_BYTES_MAX
            && letters.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_id {
            return Err(NotAnId);
        }
        Ok(Self { epoch, track: track.clone(), number, container })
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn track(&self) -> &TrackSid {
        &self.track
    }

    pub fn container(&self) -> Container {
        self.container
    }

    /// What it is called until it is finished.
    pub fn part(&self) -> String {
        format!("{self}{}", Self::PART)
    }
}

/// `<epoch>-<boot>-<track>-<number>.webm`, or `.mkv`
impl fmt::Display for TrackFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, track, number, container } = self;
        write!(f, "{epoch}-{track}-{number}.{}", container.extension())
    }
}

impl FromStr for Epoch {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (number, boot) = text.split_once('-').ok_or(NotAnId)?;
        let boot = u64::from_str_radix(boot, 16).map_err(|_| NotAnId)?;
        exactly(text, Self { number: number.parse().map_err(|_| NotAnId)?, boot })
    }
}

impl FromStr for TrackFile {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (stem, extension) = text.rsplit_once('.').ok_or(NotAnId)?;
        let container = [Container::WebM, Container::Matroska].into_iter().find(|one| one.extension() == extension);
        let (rest, number) = stem.rsplit_once('-').ok_or(NotAnId)?;
        let (epoch, track) = rest.rsplit_once('-').ok_or(NotAnId)?;
        let number = number.parse().map_err(|_| NotAnId)?;
        exactly(text, Self::new(epoch.parse()?, &track.into(), number, container.ok_or(NotAnId)?)?)
    }
}

/// One value has one name: `+1`, `01` and capital letters would be others.
fn exactly<T: fmt::Display>(text: &str, value: T) -> Result<T, NotAnId> {
    if value.to_string() == text { Ok(value) } else { Err(NotAnId) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: Epoch = Epoch { number: 1_763_800_000_123, boot: 0xFEED };

    #[test]
    fn files_are_called_by_ids() {
        let file = TrackFile::new(EPOCH, &"TR_VCa1B2".into(), 0, Container::WebM).unwrap();
        assert_eq!(file.to_string(), "1763800000123-000000000000feed-TR_VCa1B2-0.webm");
        assert_eq!(file.part(), "1763800000123-000000000000feed-TR_VCa1B2-0.webm.part");
        assert_eq!(EPOCH.session_file(), "1763800000123-000000000000feed.session.jsonl");
        assert_eq!(Epoch::of_session_file(&EPOCH.session_file()), Some(EPOCH));
    }

    #[test]
    fn what_is_not_an_id_becomes_no_path() {
        let long = format!("TR_{}", "a".repeat(TRACK_SID_BYTES_MAX));
        let texts = [
            "",
            "TR_",
            "PA_abc",
            "../../x",
            "TR_../x",
            "TR_a/backup",
            "TR_a\\b",
            "TR_a\0",
            "TR_a\n",
            "TR_a b",
            "TR_ä",
            "TR_a.",
            "TR_a-1",
            "tr_abc",
            "TR_a:x=1,drawbox",
            &long,
        ];
        for text in texts {
            assert_eq!(TrackFile::new(EPOCH, &text.into(), 0, Container::WebM), Err(NotAnId), "{text:?}");
        }
    }

    #[test]
    fn names_in_another_form_are_not_ours() {
        let ours = "7-000000000000feed-TR_a-0.webm";
        assert!(ours.parse::<TrackFile>().is_ok());
        for name in [
            "07-000000000000feed-TR_a-0.webm",
            "+7-000000000000feed-TR_a-0.webm",
            "7-000000000000FEED-TR_a-0.webm",
            "7-feed-TR_a-0.webm",
            "7-000000000000feed-TR_a-00.webm",
            "7-000000000000feed-TR_a-0.mp4",
            "7-000000000000feed-TR_a-0.webm.part",
            "../7-000000000000feed-TR_a-0.webm",
            "7-000000000000feed-../../TR_a-0.webm",
            "7-000000000000feed-TR_a-0/../x.webm",
        ] {
            assert_eq!(name.parse::<TrackFile>(), Err(NotAnId), "{name}");
        }
        for name in ["session.jsonl", "7-feed.session.jsonl", "7.session.jsonl", "../7-000000000000feed.session.jsonl"]
        {
            assert_eq!(Epoch::of_session_file(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_that_is_read_is_one_file_in_this_directory(text in "[0-9a-f/.\\\\\0-]{0,30}(TR_)?[a-zA-Z/.-]{0,9}-?[0-9]{0,3}(\\.webm|\\.mkv|/)?") {
            if let Ok(file) = text.parse::<TrackFile>() {
                prop_assert_eq!(file.to_string(), text.clone());
                prop_assert!(!text.contains(['/', '\\', '\0']) && !text.starts_with('.'));
            }
        }

        #[test]
        fn names_tell_their_ids(number: u64, boot: u64, sid in "TR_[a-zA-Z0-9_]{1,20}", count: u32, is_webm: bool) {
            let container = if is_webm { Container::WebM } else { Container::Matroska };
            let file = TrackFile::new(Epoch { number, boot }, &sid.into(), count, container).unwrap();
            prop_assert_eq!(file.to_string().parse::<TrackFile>(), Ok(file));
        }
    }
}
