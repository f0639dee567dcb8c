//! Codecs that kinds of clients are known to break on although their descriptions name them.
//!
//! Each row has the report it stands on. Row by row the list can only shrink what a client is told it may publish and what
//! it is sent; whoever matches no row gets everything.

use std::ops::Range;

use plenary_model::Codec;
use plenary_room_core::session::UnfitCodecs;

use super::authorize::Client;

/// What is unfit for this client. Browsers do not describe themselves to their SDK; their `User-Agent` does.
pub fn unfit_codecs(client: &Client, user_agent: &str) -> UnfitCodecs {
    let browser = Browser::of(client, user_agent);
    let mut unfit = UnfitCodecs::default();
    for quirk in QUIRKS.iter().filter(|quirk| quirk.matches(&browser)) {
        unfit.publishing.extend(quirk.publishing);
        unfit.receiving.extend(quirk.receiving);
    }
    unfit
}

struct Quirk {
    /// In lower case.
    browser: &'static str,
    versions: Range<Version>,
    /// On every one if there is none.
    system: Option<&'static str>,
    publishing: &'static [Codec],
    receiving: &'static [Codec],
}

/// Major and minor; 0 where it is unknown.
type Version = (u32, u32);

const FIRST: Version = (0, 0);
const LAST: Version = (u32::MAX, 0);

const QUIRKS: [Quirk; 4] = [
    // github.com/livekit/livekit/issues/3266 and pull/3284: its hardware decoder shows AV1 with layers as black.
    Quirk {
        browser: "safari",
        versions: FIRST..LAST,
        system: None,
        publishing: &[Codec::Av1],
        receiving: &[Codec::Av1],
    },
    // github.com/livekit/livekit/pull/3631: VP9 with layers comes out broken.
    Quirk { browser: "safari", versions: (18, 4)..LAST, system: None, publishing: &[Codec::Vp9], receiving: &[] },
    // github.com/livekit/livekit, pkg/clientconfiguration/conf.go, and client-sdk-js/issues/1605: AV1 without its layers.
    Quirk {
        browser: "firefox",
        versions: FIRST..(157, 0),
        system: None,
        publishing: &[Codec::Av1],
        receiving: &[Codec::Av1],
    },
    // github.com/livekit/livekit/pull/2183 and bugzilla.mozilla.org/show_bug.cgi?id=1802829.
    Quirk {
        browser: "firefox",
        versions: FIRST..LAST,
        system: Some("android"),
        publishing: &[Codec::H264],
        receiving: &[],
    },
];

impl Quirk {
    fn matches(&self, browser: &Browser) -> bool {
        browser.name == self.browser
            && self.versions.contains(&browser.version)
            && self.system.is_none_or(|system| browser.system == system)
    }
}

/// All of it in lower case, empty where it is unknown.
struct Browser {
    name: String,
    version: Version,
    system: String,
}

impl Browser {
    fn of(client: &Client, user_agent: &str) -> Self {
        let guessed = Self::guess(user_agent);
        let said = |said: &str, guessed: String| if said.is_empty() { guessed } else { said.to_ascii_lowercase() };
        let version = if client.browser.is_empty() { guessed.version } else { version(&client.browser_version) };
        let name = said(&client.browser, guessed.name);
        Self { name: name.trim_end_matches(" mobile").to_owned(), version, system: said(&client.os, guessed.system) }
    }

    /// The browsers of the table; others that carry their names for compatibility are none of them.
    fn guess(user_agent: &str) -> Self {
        let after = |mark: &str| user_agent.split_once(mark).map(|(_, rest)| rest);
        let poses = ["Chrome/", "Chromium/", "Android"].iter().any(|mark| user_agent.contains(mark));
        let (name, version) = if let Some(rest) = after("Firefox/") {
            ("firefox", version(rest))
        } else if let Some(rest) = after("Version/").filter(|rest| rest.contains("Safari/") && !poses) {
            ("safari", version(rest))
        } else {
            ("", (0, 0))
        };
        let system = if user_agent.contains("Android") { "android" } else { "" };
        Self { name: name.to_owned(), version, system: system.to_owned() }
    }
}

/// From `18.4.1 Safari/605` and the like.
fn version(text: &str) -> Version {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unfit(user_agent: &str) -> (Vec<Codec>, Vec<Codec>) {
        let UnfitCodecs { publishing, receiving } = unfit_codecs(&Client::default(), user_agent);
        (publishing, receiving)
    }

    #[test]
    fn browsers_are_known_by_what_they_say_of_themselves_over_http() {
        use Codec::{Av1, H264, Vp9};
        let webkit = "AppleWebKit/605.1.15 (KHTML, like Gecko)";
        let mac = format!("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {webkit}");
        let phone = format!("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {webkit}");
        let chromium = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)";
        for (user_agent, publishing, receiving) in [
            (format!("{mac} Version/17.6 Safari/605.1.15"), vec![Av1], vec![Av1]),
            (format!("{mac} Version/18.3.1 Safari/605.1.15"), vec![Av1], vec![Av1]),
            (format!("{phone} Version/18.4 Mobile/15E148 Safari/604.1"), vec![Av1, Vp9], vec![Av1]),
            (format!("{mac} Version/26.0 Safari/605.1.15"), vec![Av1, Vp9], vec![Av1]),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".into(), vec![Av1], vec![Av1]),
            ("Mozilla/5.0 (Windows NT 10.0; rv:157.0) Gecko/20100101 Firefox/157.0".into(), vec![], vec![]),
            ("Mozilla/5.0 (Android 14; Mobile; rv:156.0) Gecko/156.0 Firefox/156.0".into(), vec![Av1, H264], vec![Av1]),
            (format!("{chromium} Chrome/156.0.0.0 Safari/537.36"), vec![], vec![]),
            (format!("{chromium} HeadlessChrome/156.0.0.0 Safari/537.36"), vec![], vec![]),
            (format!("{chromium} Version/4.0 Chrome/120.0.0.0 Mobile Safari/537.36"), vec![], vec![]),
            (String::new(), vec![], vec![]),
            ("Version/ Safari/".into(), vec![Av1], vec![Av1]),
        ] {
            assert_eq!(unfit(&user_agent), (publishing, receiving), "{user_agent}");
        }
    }

    #[test]
    fn what_a_client_says_in_its_query_counts_more() {
        let client = |browser: &str, version: &str, os: &str| Client {
            browser: browser.into(),
            browser_version: version.into(),
            os: os.into(),
            ..Client::default()
        };
        let publishing = |client: Client| unfit_codecs(&client, "Firefox/140.0").publishing;
        assert_eq!(publishing(client("Safari", "18.4", "ios")), [Codec::Av1, Codec::Vp9]);
        assert_eq!(publishing(client("Firefox Mobile", "157.1", "Android")), [Codec::H264]);
        assert_eq!(publishing(client("Chrome", "156", "")), []);
    }
}
