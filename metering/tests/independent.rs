//! The other verifier, in another language, written from `docs/metering.md`: it says of each bundle what ours says.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_types, reason = "this test runs the other program; the crate does not")]

use metering::ledger::{
    Books, Date, Export, Exporter, Kind, Ledger, LedgerId, LineReader, NewEntry, SigningKey, Trust, encode_readings,
    verify,
};
use metering::{Dimension, Mark, Reading};
use std::path::{Path, PathBuf};
use std::process::Command;
use units::{BLOCK_LEN, ClassId, MeterTime, TenantId, VolumeId};

const ID: LedgerId = LedgerId([0xab; 16]);
const PYTHON: &str = "/usr/bin/python3";

fn reading(tenant: u64, round: u64) -> Reading {
    let (at, tenant) = (300_000 * round, TenantId(tenant));
    let first = Reading::first(VolumeId(tenant.0), tenant, ClassId::DEFAULT, MeterTime(at), 1_795_824_000_000 + at);
    let registers = first.registers.with(Dimension::Provisioned, u128::from(round) << 48);
    Reading { sequence: round, mark: Mark::Usual, registers, ..first }
}

/// A bundle of tenant 2 over three days, and the keys that signed it.
fn bundle() -> (Vec<u8>, [SigningKey; 2]) {
    let keys = [3, 4].map(|seed| SigningKey::from_seed(&[seed; 32]));
    let (mut ledger, write) = Ledger::create(1 << 20, ID);
    let mut disk = write.bytes;
    ledger.on_durable();
    let mut write = |ledger: &mut Ledger, bytes: Vec<u8>| {
        disk.extend(bytes);
        ledger.on_durable();
    };
    for day in 1..=3 {
        for tenant in [1, 2, 7] {
            let readings = encode_readings(&[reading(tenant, u64::from(day))]).pop().expect("a payload");
            let note = format!("{{\"day\":{day},\"text\":\"\u{e9}, \\\"}}\"}}");
            let entry = |kind, payload| NewEntry { tenant: TenantId(tenant), kind, time_ms: u64::from(day), payload };
            let entries = [entry(Kind::Readings, &readings), entry(Kind::Note, &note)];
            let blocks = ledger.append(&entries).expect("entries");
            write(&mut ledger, blocks.bytes);
        }
        let date = Date::new(2026, 11, day).expect("a day");
        let (key, next) = if day == 1 { (&keys[0], Some(keys[1].public())) } else { (&keys[1], None) };
        let blocks = ledger.sign_head(date, key, next).expect("a head");
        write(&mut ledger, blocks.bytes);
    }
    let (mut exporter, mut reader, mut bundle) = (
        Exporter::new(Export { tenant: TenantId(2), books: Books::Both, after: Some(1), last: 3 }),
        LineReader::default(),
        Vec::new(),
    );
    for (block, bytes) in (0..).zip(disk.chunks(BLOCK_LEN)).skip(1) {
        for line in reader.block(block, bytes).expect("a block") {
            exporter.line(&line, &mut bundle).expect("a line");
        }
    }
    (bundle, keys)
}

/// What the other verifier prints of each of `bundles`; `None` when there is no Python.
fn asked(folder: &Path, bundles: &[Vec<u8>], arguments: &[String]) -> Option<Vec<String>> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/metering/verify.py");
    let mut command = Command::new("timeout");
    command.args(["300", PYTHON]).arg(script).args(arguments);
    for (place, bundle) in bundles.iter().enumerate() {
        let file = folder.join(place.to_string());
        #[expect(clippy::disallowed_methods, reason = "the other program reads files")]
        std::fs::write(&file, bundle).expect("a file");
        command.arg(file);
    }
    #[expect(clippy::disallowed_methods, reason = "whether a tool is missing is told by its file")]
    if std::fs::metadata(PYTHON).is_err() {
        #[expect(clippy::disallowed_methods, reason = "where it may not be missing is told so")]
        let must = std::env::var_os("CI").is_some();
        assert!(!must, "not installed: {PYTHON}");
        eprintln!("SKIPPED: the_other_verifier_says_the_same: not installed: {PYTHON}");
        return None;
    }
    let output = command.output().expect("it runs");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect())
}

/// P7. A verifier of which no line is ours takes what ours takes and refuses what ours refuses, at the same line.
#[test]
fn the_other_verifier_says_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let (bundle, keys) = bundle();
    let trusts = [Some(&keys[0]), Some(&keys[1]), None];
    let mut bundles = vec![bundle.clone()];
    for at in (0..bundle.len()).step_by(11) {
        let mut edited = bundle.clone();
        edited[at] ^= 1 << (at % 8);
        bundles.push(edited);
    }
    let lines: Vec<&[u8]> = bundle.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 0..lines.len() {
        bundles.push([&lines[..at], &lines[at + 1..]].concat().concat());
        bundles.push([&lines[..=at], &lines[at..]].concat().concat());
        bundles.push(lines[..at].concat());
        let mut swapped = lines.clone();
        swapped.swap(at, at / 2);
        bundles.push(swapped.concat());
    }
    // A key of low order is none, neither that of a head nor the next one.
    for low in ["00".repeat(32), format!("01{}", "00".repeat(31)), format!("ee{}7f", "ff".repeat(30))] {
        let text = String::from_utf8(bundle.clone()).expect("text");
        for key in [&keys[0], &keys[1]] {
            bundles.push(text.replace(&key.public().to_string(), &low).into_bytes());
        }
    }
    for key in trusts {
        let public = key.map(SigningKey::public);
        let trust = Trust { keys: public.into_iter().collect(), heads: Vec::new() };
        let arguments: Vec<String> = public.into_iter().map(|key| format!("--key={key}")).collect();
        let bundles = if public.is_some() { &bundles[..] } else { &bundles[..3] };
        let Some(answers) = asked(folder.path(), bundles, &arguments) else { return };
        assert_eq!(answers.len(), bundles.len());
        for (place, (bundle, answer)) in bundles.iter().zip(answers).enumerate() {
            match verify(bundle, trust.clone()) {
                Ok(found) => {
                    let ends = "(meter to 3, account to 3), behind head 1 of 2026-11-01, signed to 2026-11-03";
                    let ledger = format!("ledger {ID}");
                    assert_eq!(answer, format!("tenant 2: {} entries {ends}, {ledger}", found.entries));
                    assert!(bundles[0] == *bundle, "bundle {place}");
                }
                Err(error) => {
                    assert!(answer.starts_with(&format!("line {}: ", error.line)), "{place}: {error}; {answer}");
                }
            }
        }
    }
    let hash = verify(&bundle, Trust { keys: vec![keys[0].public()], heads: Vec::new() }).expect("right").last.hash();
    let answers = asked(folder.path(), &bundles[..2], &[format!("--head={hash}")]).expect("Python");
    assert!(answers[0].starts_with("tenant 2: ") && answers[1].starts_with("line "), "{answers:?}");
}

/// P7. A payload that one of the two takes for JSON on one line the other takes too: what RFC 8259 leaves to each reader, as how
/// deep and how long, is not left to them.
#[test]
fn both_verifiers_take_the_same_payloads() {
    let folder = tempfile::tempdir().expect("a folder");
    let nested = |depth| ["[".repeat(depth), "]".repeat(depth)].concat();
    let payloads = [
        "1".into(),
        nested(100),
        nested(101),
        nested(2000),
        format!("[{}]", ["[]"; 200].join(",")),
        format!("\"{}\\\"[\"", "[".repeat(200)),
        "9".repeat(5000),
        "1e99999".into(),
        "-0.0".into(),
        "\"\\ud800\"".into(),
        "\"\u{2028}\u{7f}\"".into(),
        "{\"a\":1,\"a\":2}".into(),
        " 1 ".into(),
        "\"\u{feff}\"".into(),
    ];
    let key = SigningKey::from_seed(&[3; 32]);
    let mut bundles = Vec::new();
    for payload in &payloads {
        let (mut ledger, _) = Ledger::create(1 << 20, ID);
        ledger.on_durable();
        let note = NewEntry { tenant: TenantId(2), kind: Kind::Note, time_ms: 1, payload };
        let Ok(write) = ledger.append(&[note]) else { continue };
        ledger.on_durable();
        let head = ledger.sign_head(Date::new(2026, 11, 1).expect("a day"), &key, None).expect("a head");
        let export = Export { tenant: TenantId(2), books: Books::Both, after: None, last: 1 };
        let (mut exporter, mut reader, mut bundle) = (Exporter::new(export), LineReader::default(), Vec::new());
        let blocks = [write.bytes, head.bytes].concat();
        for (block, bytes) in (1..).zip(blocks.chunks(BLOCK_LEN)) {
            for line in reader.block(block, bytes).expect("a block") {
                exporter.line(&line, &mut bundle).expect("a line");
            }
        }
        bundles.push(bundle);
    }
    assert!(bundles.len() > 10);
    let trust = Trust { keys: vec![key.public()], heads: Vec::new() };
    let Some(answers) = asked(folder.path(), &bundles, &[format!("--key={}", key.public())]) else { return };
    for (bundle, answer) in bundles.iter().zip(answers) {
        assert!(verify(bundle, trust.clone()).is_ok());
        let text = String::from_utf8_lossy(bundle);
        assert!(answer.starts_with("tenant 2: "), "{answer}: {}", text.chars().take(300).collect::<String>());
    }
}
