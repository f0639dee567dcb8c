//! How many instructions a forwarded packet takes besides the cipher, against the numbers kept beside this file:
//! `cargo bench -p plenary-testkit --bench instructions`.
//!
//! Times on a shared machine say little about a change of some percent; instructions under callgrind are the same from run
//! to run, but for what hash tables with random keys do (0.2 % at most in three runs). More than [`MARGIN_PERCENT`] above a
//! kept number is an error. `-- --keep` writes the numbers down, in the change that moves them; they belong to one compiler,
//! C library and valgrind, so a new one of these moves them too.
//!
//! The program runs itself under valgrind, once per shape. Counted is what a [`Part`] does inside [`counted_work`], without what
//! the cipher takes: valgrind's processor has no AVX-512, so that would be another cipher than the one that runs.
#![allow(clippy::print_stdout, reason = "a report is what this program is for")]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use plenary_testkit::stage::{Call, Dropped, Media, Meter, Part, Shape, Unmeasured};

struct Counting {
    shape: Shape,
    parts: &'static [Part],
}

const MEDIA: &[Part] = &[Part::Packets, Part::Timers];

const COUNTINGS: &[Counting] = &[
    Counting { shape: Shape::video("video", 1, 10, &[1_100; 5]), parts: MEDIA },
    Counting {
        shape: Shape::video("video, split as browsers do", 1, 10, &[1_099, 1_099, 1_099, 1_100, 1_100]),
        parts: MEDIA,
    },
    Counting {
        shape: Shape {
            name: "simulcast, each layer to a third",
            rooms: 1,
            publishers: 1,
            subscribers: 12,
            media: Media::Simulcast([&[600], &[1_100; 2], &[1_100; 5]]),
            is_recorded: false,
        },
        parts: MEDIA,
    },
    Counting {
        shape: Shape {
            name: "audio",
            rooms: 1,
            publishers: 6,
            subscribers: 0,
            media: Media::Audio(&[100]),
            is_recorded: false,
        },
        parts: MEDIA,
    },
    Counting {
        shape: Shape { is_recorded: true, ..Shape::video("video to one, recorded", 1, 1, &[1_100; 5]) },
        parts: MEDIA,
    },
    Counting { shape: Shape::video("feedback on video", 1, 10, &[1_100; 5]), parts: &[Part::Feedback] },
];

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let value = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    if let Some(name) = value(CHILD) {
        let counting = COUNTINGS.iter().find(|counting| counting.shape.name == name);
        return run(counting.expect("the parent knows the names"));
    }
    let kept_at = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
    let kept = fs::read_to_string(&kept_at).unwrap_or_default();
    let kept = read(&kept);
    let mut lines = String::from("# Instructions per forwarded packet, without the cipher: `-- --keep` writes them.\n");
    let mut is_more = false;
    println!("| Per forwarded packet, without the cipher | instructions | kept | change |\n|---|---|---|---|");
    for Counting { shape: Shape { name, .. }, .. } in COUNTINGS {
        let count = count(name);
        lines += &format!("{count:.1} {name}\n");
        let Some(before) = kept.get(*name) else {
            println!("| {name} | {count:.1} | – | – |");
            is_more = true;
            continue;
        };
        let change = (count / before - 1.0) * 100.0;
        is_more |= change > MARGIN_PERCENT;
        let word = if change.abs() > MARGIN_PERCENT { " **moved**" } else { "" };
        println!("| {name} | {count:.1} | {before:.1} | {change:+.2} %{word} |");
    }
    if arguments.iter().any(|argument| argument == "--keep") {
        fs::write(&kept_at, lines).expect("the numbers are written");
        return println!("kept in {}", kept_at.display());
    }
    println!("If a number moved by more than {MARGIN_PERCENT} % for a reason, up or down, keep it in the same change:");
    println!("cargo bench -p plenary-testkit --bench instructions -- --keep");
    assert!(!is_more, "more than {MARGIN_PERCENT} % above a kept number, or none is kept");
}

/// `number name` by line.
fn read(kept: &str) -> BTreeMap<&str, f64> {
    let lines = kept.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(count, name)| (name, count.parse().expect("a number")))
        .collect()
}

/// Instructions per forwarded packet of one counting, in a process of its own under callgrind.
fn count(name: &str) -> f64 {
    let own = std::env::current_exe().expect("a program has a path");
    let profile = std::env::temp_dir().join(format!("plenary-instructions-{}", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["-q", "--tool=callgrind", "--toggle-collect=*counted_work*"]);
    valgrind.arg(format!("--callgrind-out-file={}", profile.display())).arg(own).args([CHILD, name]);
    let output = valgrind.output().expect("valgrind is installed (.ci/install-test-tools)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outputs: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("the child says how many packets");
    let text = fs::read_to_string(&profile).expect("callgrind writes a profile");
    let _ = fs::remove_file(profile);
    let (all, cipher) = costs(&text);
    assert!(cipher > 0 && cipher < all, "{cipher} of {all} instructions are the cipher's");
    (all - cipher) as f64 / outputs
}

/// All instructions of a profile, and those of calls into the cipher. Each call stands as `cfn=` with the name, `calls=`,
/// and a line that ends with its cost; a name in full only where it is first told (valgrind manual, callgrind format).
fn costs(profile: &str) -> (u64, u64) {
    let (mut all, mut cipher) = (0, 0);
    let mut names = BTreeMap::new();
    let (mut caller, mut callee, mut is_call) = ("", "", false);
    for line in profile.lines() {
        if let Some(total) = line.strip_prefix("totals: ") {
            all = total.trim().parse().expect("one event is counted");
        } else if let Some(name) = line.strip_prefix("fn=") {
            caller = resolve(name, &mut names);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = resolve(name, &mut names);
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if std::mem::take(&mut is_call) && callee.contains(CIPHER) && !caller.contains(CIPHER) {
            cipher += line.rsplit(' ').next().and_then(|cost| cost.parse::<u64>().ok()).expect("a cost");
        }
    }
    (all, cipher)
}

/// `(number) name`, or the number of a name told before.
fn resolve<'p>(text: &'p str, names: &mut BTreeMap<&'p str, &'p str>) -> &'p str {
    match text.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(text).copied().unwrap_or(text),
    }
}

/// What runs under valgrind.
fn run(counting: &Counting) {
    let mut call = Call::steady(counting.shape);
    let (before, _) = call.forwarded_and_dropped();
    for _ in 0..TICKS {
        call.tick(&mut Dropped, &mut Collected(counting.parts));
    }
    let (after, _) = call.forwarded_and_dropped();
    assert_eq!(after - before, (TICKS * counting.shape.outputs_per_tick()) as u64, "everything is forwarded");
    println!("{}", after - before);
}

/// Runs these parts where callgrind counts, the others elsewhere.
struct Collected(&'static [Part]);

impl Meter for Collected {
    fn measure(&mut self, part: Part, work: &mut dyn FnMut()) {
        if self.0.contains(&part) { counted_work(work) } else { Unmeasured.measure(part, work) }
    }
}

/// Callgrind knows it by its name.
#[inline(never)]
fn counted_work(work: &mut dyn FnMut()) {
    work();
}

const CHILD: &str = "--count";
/// What aws-lc calls sealing and opening, its prefix aside.
const CIPHER: &str = "EVP_AEAD_CTX_";
const TICKS: usize = 90;
const MARGIN_PERCENT: f64 = 3.0;
