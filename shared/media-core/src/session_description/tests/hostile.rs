use proptest::prelude::*;

use super::*;
use crate::session_description::parse::Description;

fn refusal(offer: &str) -> Refusal {
    PublisherSdp::default().answer(offer, &[camera(), microphone()], &Local::new().parameters()).unwrap_err()
}

#[test]
fn a_flood_of_lines_is_refused() {
    let flood = CHROMIUM_DATA.to_owned() + &"a=candidate:1 1 udp 1 192.0.2.1 9 typ host\n".repeat(10_000);
    assert_eq!(refusal(&flood), Refusal::Malformed("too many attributes in one section"));
    let flood = CHROMIUM_DATA.to_owned() + &"b=AS:1\n".repeat(20_000);
    assert_eq!(refusal(&flood), Refusal::Malformed("too many lines"));
}

#[test]
fn a_large_description_is_refused_unread() {
    let large = "v=0\n".to_owned() + &"x".repeat(1 << 20);
    assert_eq!(refusal(&large), Refusal::SdpTooLarge { bytes: (1 << 20) + 4, limit: 1 << 20 });
}

#[test]
fn many_sections_are_refused() {
    let many = "v=0\n".to_owned() + &"m=audio 0 X 0\n".repeat(600);
    assert_eq!(refusal(&many), Refusal::TooManySections { sections: 600, limit: 512 });
}

/// The caps on lines, attributes and formats are what bounds the work; a description at all of them is answered.
#[test]
fn a_description_as_long_as_it_may_be_is_answered() {
    let section = |mid: usize, formats: usize, lines: usize| {
        let formats: Vec<_> = (0..formats).map(|number| (number % 128).to_string()).collect();
        let mut section = format!("m=video 9 UDP/TLS/RTP/SAVPF {}\na=mid:m{mid}\na=sendonly\n", formats.join(" "));
        // Nothing is found before everything was looked at.
        for number in 0..lines {
            section += &format!(
                "a=rtpmap:{} {}/90000\na=fmtp:{} apt=1\n",
                number % 128,
                ["x", "rtx"][number % 2],
                number % 128
            );
        }
        section
    };
    let many_lines: String = (0..15).map(|mid| section(mid, 128, 500)).collect();
    for (name, sections) in [("many lines", many_lines), ("many formats", section(0, 200_000, 500))] {
        let offer = CHROMIUM_DATA.to_owned() + &sections;
        let description = Description::parse(&offer, SdpLimits::default()).unwrap();
        assert!(description.sections.iter().all(|section| section.formats.len() <= 128), "{name}");
        let answer = PublisherSdp::default().answer(&offer, &[camera()], &Local::new().parameters());
        assert!(answer.is_ok(), "{name}: {answer:?}");
    }
}

#[test]
fn what_is_no_description_is_refused_by_name() {
    for (from, to, why) in [
        ("v=0", "v=1", Refusal::Malformed("does not start with v=0")),
        ("t=0 0", "nonsense", Refusal::Malformed("a line is not <type>=<value>")),
        ("a=mid:0", "a=mid:0 1", Refusal::Malformed("mid")),
        ("a=mid:0", "a=mud:0", Refusal::Missing("mid")),
        ("a=mid:1", "a=mid:0", Refusal::Malformed("two sections with one mid")),
        ("a=ice-ufrag:XNmt", "a=x", Refusal::Missing("ICE user fragment")),
        ("a=ice-ufrag:XNmt", "a=ice-ufrag:X", Refusal::Malformed("ICE credentials")),
        ("a=ice-pwd:p1bYNxUr6GW6Wf3htbzvzzfl", "a=ice-pwd:short", Refusal::Malformed("ICE credentials")),
        ("a=setup:actpass", "a=setup:holdconn", Refusal::Malformed("setup")),
        ("m=video 9", "m=video x", Refusal::Malformed("m= line")),
        ("a=rtcp-mux", "a=rtcp\rmux", Refusal::Malformed("control character in a line")),
    ] {
        let offer = CHROMIUM_SIMULCAST.replace(from, to);
        assert_ne!(offer, CHROMIUM_SIMULCAST, "{from}");
        assert_eq!(refusal(&offer), why, "{from} became {to}");
    }
}

#[test]
fn an_answer_repeats_nothing_a_client_could_hide_a_line_in() {
    let offer = CHROMIUM_SIMULCAST
        .replace("a=rid:q send", "a=rid:q\u{b}a=ice-lite send")
        .replace("send q;", "send q\u{b}a=ice-lite;");
    let answer = answer(&mut PublisherSdp::default(), &offer, &[camera()]);
    assert!(!answer.sdp.contains('\u{b}'));
    assert_eq!(answer.receive[0].rids, ["h", "f"]);
}

#[test]
fn numbers_out_of_range_mean_nothing() {
    let offer = CHROMIUM_SIMULCAST
        .replace("SAVPF 96 97", "SAVPF 96 97 300 -1 128 99999999999")
        .replace("a=extmap:4 ", "a=extmap:400 ")
        .replace("a=extmap:10 ", "a=extmap:0 ")
        .replace("a=fmtp:97 apt=96", "a=fmtp:97 apt=960")
        .replace("a=max-message-size:262144", "a=max-message-size:999999999999999999999999")
        .replace("a=ssrc:3871351320", "a=ssrc:99999999999");
    let answer = answer(&mut PublisherSdp::default(), &offer, &[camera(), microphone()]);
    let video = &answer.receive[0];
    assert_eq!((video.extensions.transport_sequence, video.extensions.rid), (None, None));
    assert_eq!(video.payloads[0].rtx_payload_type, None);
    assert!(answer.receive[1].ssrcs.is_empty());
    assert_eq!(answer.remote.max_message_bytes, 65_536);
}

/// A real description with some bytes changed, lines moved and pieces lost.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5_u8, "[ -~\\n]{0,6}");
    (prop::sample::select(OFFERS.to_vec()), prop::collection::vec(edit, 1..12)).prop_map(|(offer, edits)| {
        let mut lines: Vec<String> = offer.lines().map(str::to_owned).collect();
        for (at, other, how, text) in edits {
            let (at, other) = (at.index(lines.len()), other.index(lines.len()));
            match how {
                0 => lines.swap(at, other),
                1 => lines[at] = lines[other].clone(),
                2 => lines[at].push_str(&text),
                3 => {
                    let cut = lines[at].len().saturating_sub(text.len());
                    lines[at].truncate(cut);
                }
                _ => lines[at] = lines[at].replacen(|letter: char| letter.is_ascii_digit(), &text, 1),
            }
        }
        lines.join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_panics(text in "(v=0\n)?([amv]=)?(\\PC|[\r\n:=; /]){0,200}") {
        let local = Local::new();
        let _ = PublisherSdp::default().answer(&text, &[camera()], &local.parameters());
        let mut subscriber = SubscriberSdp::new(true);
        subscriber.offer(&local.parameters());
        let _ = subscriber.accept(&text, SdpLimits::default());
    }

    #[test]
    fn no_mutated_offer_panics_or_moves_a_section(offers in prop::collection::vec(mutated(), 1..4)) {
        let local = Local::new();
        let mut publisher = PublisherSdp::default();
        let mut sections_before = 0;
        for offer in offers {
            if let Ok(answer) = publisher.answer(&offer, &[camera(), microphone()], &local.parameters()) {
                let count = sections(&answer.sdp).len();
                prop_assert_eq!(count, offer.lines().filter(|line| line.starts_with("m=")).count());
                prop_assert!(count >= sections_before);
                sections_before = count;
                prop_assert!(answer.receive.iter().all(|section| !section.payloads.is_empty()));
            }
        }
    }

    #[test]
    fn no_mutated_answer_panics(answer in mutated(), cut in any::<prop::sample::Index>(), letter in any::<char>()) {
        let local = Local::new();
        let mut subscriber = SubscriberSdp::new(true);
        subscriber.want(&[track("TR_mic", MediaKind::Audio, 10), track("TR_cam", MediaKind::Video, 20)]);
        let offer = subscriber.offer(&local.parameters());
        let _ = subscriber.accept(&answer, SdpLimits::default());
        let mut own: Vec<char> = agreeing_client(&offer).chars().collect();
        let at = cut.index(own.len());
        own[at] = letter;
        let _ = subscriber.accept(&own.into_iter().collect::<String>(), SdpLimits::default());
    }
}
