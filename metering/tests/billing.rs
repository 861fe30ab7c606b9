//! Bills that were wrong once, a test each.
#![forbid(unsafe_code)]

use metering::{
    Account, Bill, Charge, Dimension, Exact, Invoice, Issuer, Line, Note, Period, RateCard, RateCards, Reading,
    Registers, rate,
};
use std::collections::BTreeMap;
use units::{ClassId, Epoch, MeterTime, TenantId, VolumeId};

const GIB: u128 = 1 << 30;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;
const CARD: &str = r#"{
    "name": "a card", "currency": "EUR", "effective_from": "2026-01-01T00:00:00Z", "rounding": { "rule": "half_even" },
    "classes": [
        { "class": 0, "name": "silver", "prices": [
            { "dimension": "provisioned", "unit": "gib_month", "tiers": [{ "price": "1" }] } ] },
        { "class": 1, "name": "gold", "prices": [
            { "dimension": "provisioned", "unit": "gib_month", "tiers": [{ "price": "10" }] } ] }
    ]
}"#;

fn month(name: &str) -> Period {
    Period::of_month(name, "Europe/Berlin").expect("a month")
}

/// Its first and last millisecond since 1970.
fn ends(period: &Period) -> (u64, u64) {
    let ms = |moment: jiff::Timestamp| u64::try_from(moment.as_millisecond()).expect("after 1970");
    (ms(period.span().from), ms(period.span().to))
}

fn cards(documents: &[String]) -> RateCards {
    let mut cards = RateCards::default();
    for document in documents {
        cards.insert(RateCard::parse(document).expect("a card"), None).expect("it fits");
    }
    cards
}

fn account() -> Account {
    Account { tenant: TenantId(1), name: "acme".to_owned(), resources: BTreeMap::new() }
}

/// A gold volume that holds 1 GiB since `since`, read at `at`.
fn reading(sequence: u64, since: u64, at: u64) -> Reading {
    Reading {
        resource: VolumeId(1),
        tenant: TenantId(1),
        class: ClassId(1),
        epoch: Epoch(1),
        sequence,
        at: MeterTime(at),
        wall_ms: at,
        registers: Registers::default().with(Dimension::Provisioned, GIB * u128::from(at - since)),
    }
}

fn bill(readings: &[Reading], period: &Period) -> Bill {
    rate(readings, &cards(&[CARD.to_owned()]), period, &account()).expect("a bill")
}

fn issue(bill: Bill, corrections: Vec<Line>, id: &str, at: jiff::Timestamp) -> Result<Invoice, metering::InvoiceError> {
    Invoice::issue(bill, corrections, Issuer { name: "host".to_owned(), region: None }, id, at)
}

/// How far registers went on, by lines; prices are flat, so that no share is on two lines.
fn used(lines: &[Line]) -> Exact {
    let mut sum = Exact::zero();
    for line in lines {
        if let Charge::Usage(usage) = &line.charge {
            sum = usage.resources.iter().fold(sum, |sum, share| sum + share.used.clone());
        }
    }
    sum
}

/// P7. An invoice that is issued at once when its month is over does not lose what was used since the last reading of the month.
#[test]
fn an_invoice_waits_for_the_reading_after_its_month() {
    let (november, december) = (month("2026-11"), month("2026-12"));
    let ((begin, end), (_, after)) = (ends(&november), ends(&december));
    let moments = [begin, end - 150_000, end + 150_000, after];
    let readings: Vec<Reading> = (0..).zip(moments).map(|(sequence, at)| reading(sequence, begin, at)).collect();
    let at_once = issue(bill(&readings[..2], &november), Vec::new(), "1", november.span().to);
    // Refused then, it is issued an hour later, when all have been read again.
    let later = november.span().to + jiff::SignedDuration::from_mins(61);
    let first = at_once.or_else(|_| issue(bill(&readings, &november), Vec::new(), "1", later)).expect("an invoice");
    let second = issue(bill(&readings, &december), Vec::new(), "2", december.span().to).expect("an invoice");
    assert_eq!(used(first.lines()) + used(second.lines()), Exact::from(GIB * u128::from(after - begin)));
    // A volume that is gone for long does not hold it up.
    let gone = issue(bill(&readings[..2], &november), Vec::new(), "1", later).expect("an invoice");
    assert_eq!(gone.notes().len(), 1);
}

/// P7. What the wall clock puts into another month, or into two months at once, does not go from or onto a bill untold.
#[test]
fn a_wall_clock_far_off_is_told_as_a_doubt() {
    let november = month("2026-11");
    let (begin, end) = ends(&november);
    let moments = [begin, begin + 10 * DAY_MS, begin + 11 * DAY_MS, end];
    let readings: Vec<Reading> = (0..).zip(moments).map(|(sequence, at)| reading(sequence, begin, at)).collect();
    let whole = Exact::from(GIB * u128::from(end - begin));
    for wall_ms in [0, u64::MAX] {
        // For a day the machine knew no time: this day is on no bill at all.
        let mut readings = readings.clone();
        readings[1].wall_ms = wall_ms;
        let bill = bill(&readings, &november);
        let is_told = bill.notes.iter().any(Note::is_doubt);
        assert!(used(&bill.lines) == whole || is_told, "{wall_ms}: {:?}", bill.notes);
    }
}

/// P7. A machine comes up in 2040, by its clock, and is put right within minutes: until 2040 each month has that time twice.
#[test]
fn a_clock_that_came_back_from_2040_is_told_on_each_bill() {
    let (november, december) = (month("2026-11"), month("2026-12"));
    let ((begin, end), (_, after)) = (ends(&november), ends(&december));
    let jump = 13 * 365 * DAY_MS;
    let late = |sequence, at: u64, wall_ms| Reading { wall_ms, ..reading(sequence, begin, at) };
    let off = end - 2 * DAY_MS;
    let readings = [
        reading(0, begin, off),
        // The meter's clock takes what the wall clock says to have passed over a reboot.
        late(1, off + jump, off + jump),
        late(2, off + jump + 5 * MINUTE_MS, off + 10 * MINUTE_MS),
        late(3, after + jump, after),
    ];
    let bill = bill(&readings, &december);
    let most = Exact::from(GIB * u128::from(after - end));
    let is_told = bill.notes.iter().any(Note::is_doubt);
    assert!(used(&bill.lines) <= most || is_told, "{} of at most {most}: {:?}", used(&bill.lines), bill.notes);
}

/// P7. Volumes that were read at moments of their own around a month's border: numbers stay as long as numbers of bytes and
/// milliseconds are, however many volumes there are. Else 2,000 volumes take hours, and an invoice cannot be read back.
#[test]
fn many_splits_make_no_endless_fractions() {
    let november = month("2026-11");
    let (begin, end) = ends(&november);
    let mut readings = Vec::new();
    for id in 1..=300 {
        let (before, after) = (begin - 100_000 - 601 * id, end + 100_000 + 773 * id);
        let moments = [before, begin + 50_021 + 17 * id, end - 50_033 - 19 * id, after];
        let of_volume = (0..).zip(moments).map(|(sequence, at)| reading(sequence, before, at));
        readings.extend(of_volume.map(|reading| odd(VolumeId(id), &reading)));
    }
    let free = CARD.replace("\"unit\": \"gib_month\",", "\"unit\": \"gib_month\", \"free\": \"7\",");
    let bill = rate(&readings, &cards(&[free]), &november, &account()).expect("a bill");
    let mut longest = 0;
    for line in &bill.lines {
        if let Charge::Usage(usage) = &line.charge {
            let quantities = usage.resources.iter().map(|share| share.quantity.to_string().len());
            longest = longest.max(quantities.max().unwrap_or(0));
        }
    }
    assert!(longest < 300, "{longest} digits");
    let months = ["2026-10", "2026-11", "2026-12"].map(month);
    let all = months.iter().fold(Exact::zero(), |sum, month| sum + used(&self::bill(&readings, month).lines));
    let registers = readings.iter().filter(|reading| reading.sequence == 3);
    let whole: u128 = registers.map(|reading| reading.registers.value(Dimension::Provisioned)).sum();
    assert_eq!(all, Exact::from(whole), "each unit is in one month");
}

/// A reading of a register that has gone on by no whole number a millisecond.
fn odd(resource: VolumeId, reading: &Reading) -> Reading {
    let value = reading.registers.value(Dimension::Provisioned) + u128::from(reading.sequence);
    Reading { resource, registers: reading.registers.with(Dimension::Provisioned, value), ..reading.clone() }
}

/// P7. A tenant whose volumes are all gone has no forecast for them.
#[test]
fn the_forecast_knows_that_all_are_gone() {
    let november = month("2026-11");
    let (begin, _) = ends(&november);
    let gone = begin + 10 * DAY_MS;
    let readings = [reading(0, begin, begin), reading(1, begin, gone - 5 * MINUTE_MS), reading(2, begin, gone)];
    let now = november.span().from + jiff::SignedDuration::from_hours(20 * 24);
    let forecast = metering::forecast(&readings, &november, now);
    assert_eq!(used(&bill(&forecast, &november).lines), Exact::from(GIB * u128::from(10 * DAY_MS)));
}

/// P7. A volume that has got another name since is no reason to correct what it was billed for.
#[test]
fn another_name_is_no_correction() {
    let november = month("2026-11");
    let (begin, end) = ends(&november);
    let readings = [reading(0, begin, begin), reading(1, begin, end)];
    let named = |name: &str| {
        let resources = BTreeMap::from([(VolumeId(1), name.to_owned())]);
        rate(&readings, &cards(&[CARD.to_owned()]), &november, &Account { resources, ..account() }).expect("a bill")
    };
    let issued = issue(named("web"), Vec::new(), "1", november.span().to).expect("an invoice");
    assert_eq!(metering::correct(&[issued], &named("web-old"), "looked again"), Ok(Vec::new()));
}

/// P7. What was billed in one currency is not added up with another one.
#[test]
fn a_correction_in_another_currency_is_refused() {
    let (november, december) = (month("2026-11"), month("2026-12"));
    let ((begin, end), (_, after)) = (ends(&november), ends(&december));
    let readings = [reading(0, begin, begin), reading(1, begin, end), reading(2, begin, after)];
    let issued = issue(bill(&readings, &november), Vec::new(), "1", november.span().to).expect("an invoice");
    let none = bill(&[], &november);
    let corrections = metering::correct(&[issued], &none, "it was not there").expect("corrections");
    let dollars = cards(&[CARD.replace("EUR", "USD")]);
    let in_dollars = rate(&readings, &dollars, &december, &account()).expect("a bill");
    let mixed = issue(in_dollars, corrections, "2", december.span().to);
    assert!(mixed.is_err(), "{} {}", mixed.expect("an invoice").total(), "USD, of which 10.00 were EUR");
}

/// A volume that holds so many GiB from `begin` to `end`.
fn held(id: u64, gib: u128, begin: u64, end: u64) -> [Reading; 2] {
    [(0, begin), (1, end)].map(|(sequence, at)| {
        let bytes = gib * GIB * u128::from(at - begin);
        let registers = Registers::default().with(Dimension::Provisioned, bytes);
        Reading { resource: VolumeId(id), registers, ..reading(sequence, begin, at) }
    })
}

/// P7. The script that finds a bill anew sees an invoice on which a volume pays for another one, or on which something stands
/// that was not used.
#[test]
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "another program is run, on files")]
fn the_script_sees_a_false_invoice() {
    let november = month("2026-11");
    let (begin, end) = ends(&november);
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let mut readings = [(1, 1), (2, 3)].map(|(id, gib)| held(id, gib, begin, end)).concat();
    readings.reverse();
    let lines: String = readings.iter().map(|reading| serde_json::to_string(reading).expect("JSON") + "\n").collect();
    std::fs::write(path("readings.jsonl"), lines).expect("written");
    let card = RateCard::parse(CARD).expect("a card").canonical();
    std::fs::write(path("cards.json"), format!("[{}]", String::from_utf8(card).expect("text"))).expect("written");
    let invoice = issue(bill(&readings, &november), Vec::new(), "1", november.span().to).expect("an invoice");
    let right: serde_json::Value =
        serde_json::from_str(&invoice.render(metering::Format::Json).expect("JSON")).expect("JSON");
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut invoice = right.clone();
        change(&mut invoice);
        invoice
    };
    let mut bogus = right["lines"][0].clone();
    bogus["correction"] = serde_json::json!({"kind": "corrected", "invoice": "0", "line": null, "reason": "because"});
    let rounding = serde_json::json!({"number": 3, "charge": {"kind": "rounding"}, "card": null, "span": bogus["span"],
        "exact": "9", "amount": "9.00", "notes": [], "correction": null});
    let invoices = [
        (right.clone(), true),
        (changed(&|invoice| invoice["lines"][0]["charge"]["resources"][0]["resource"] = 3.into()), false),
        (
            changed(&|invoice| {
                invoice["lines"][0]["charge"]["resources"][0]["amount"] = "0.00".into();
                invoice["lines"][0]["charge"]["resources"][1]["amount"] = "40.00".into();
            }),
            false,
        ),
        (changed(&|invoice| invoice["lines"][0]["charge"]["price"] = "11".into()), false),
        (changed(&|invoice| invoice["tenant"] = 7.into()), false),
        (
            changed(&|invoice| {
                invoice["lines"] = serde_json::json!([right["lines"][0], bogus]);
                invoice["total"] = "80.00".into();
            }),
            false,
        ),
        (
            changed(&|invoice| {
                let mut earlier = bogus.clone();
                earlier["span"] = serde_json::json!({"from": "2026-09-30T22:00:00Z", "to": "2026-10-31T23:00:00Z"});
                invoice["lines"] = serde_json::json!([right["lines"][0], earlier, rounding]);
                invoice["total"] = "89.00".into();
            }),
            false,
        ),
    ];
    for (number, (invoice, is_right)) in invoices.iter().enumerate() {
        std::fs::write(path("invoice.json"), invoice.to_string()).expect("written");
        let output = std::process::Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/metering/recompute.py"))
            .args(["--tenant", "1", "--month", "2026-11", "--zone", "Europe/Berlin"])
            .args(["--readings".into(), path("readings.jsonl"), "--cards".into(), path("cards.json")])
            .args(["--invoice".into(), path("invoice.json")])
            .output()
            .expect("python3");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), *is_right, "{number}: {said}");
    }
}
/// P7. An invoice whose volumes pay another sum than its line says is none: in FOCUS they are what is paid.
#[test]
fn an_invoice_of_which_the_shares_do_not_add_up_is_refused() {
    let november = month("2026-11");
    let (begin, end) = ends(&november);
    let invoice = issue(bill(&held(1, 3, begin, end), &november), Vec::new(), "1", november.span().to);
    let json = invoice.expect("an invoice").render(metering::Format::Json).expect("JSON");
    let mut document: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert!(Invoice::parse(&document.to_string()).is_ok());
    document["lines"][0]["charge"]["resources"][0]["amount"] = "3.00".into();
    assert!(Invoice::parse(&document.to_string()).is_err(), "30.00 are to pay, and 3.00 in FOCUS");
}

use proptest::prelude::*;

fn extreme() -> impl Strategy<Value = u64> {
    let near = 1_793_400_000_000_u64..1_796_200_000_000;
    prop_oneof![Just(0_u64), Just(u64::MAX), Just(1_u64 << 63), any::<u64>(), 0..9_u64, near.clone(), near]
}

fn extreme_reading() -> impl Strategy<Value = Reading> {
    let register = prop_oneof![Just(0_u128), Just(u128::MAX), Just(1 << 127), any::<u128>()];
    let numbers = (1..3_u64, 1..3_u64, 0..2_u64, prop_oneof![0..3_u64, extreme()], prop_oneof![0..9_u64, extreme()]);
    (numbers, extreme(), extreme(), register).prop_map(
        |((resource, tenant, class, epoch, sequence), at, wall_ms, value)| Reading {
            resource: VolumeId(resource),
            tenant: TenantId(tenant),
            class: ClassId(class),
            epoch: Epoch(epoch),
            sequence,
            at: MeterTime(at),
            wall_ms,
            registers: Registers::default().with(Dimension::Provisioned, value),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// P7. Whatever readings say, there is a bill that can be shown and read back, or an error; never a panic.
    #[test]
    fn absurd_readings_make_a_bill_or_an_error(mut readings in prop::collection::vec(extreme_reading(), 0..8), sorted in any::<bool>()) {
        let november = month("2026-11");
        if sorted {
            // Registers and clocks that only grow, so that there is a bill.
            let mut values: Vec<_> = readings.iter().map(|reading| (reading.at, reading.registers.value(Dimension::Provisioned))).collect();
            let mut ats: Vec<_> = values.iter().map(|value| value.0).collect();
            values.sort_by_key(|value| value.1);
            ats.sort();
            for (index, reading) in readings.iter_mut().enumerate() {
                reading.sequence = u64::try_from(index).expect("few");
                reading.epoch = Epoch(1);
                reading.at = ats[index];
                reading.registers = Registers::default().with(Dimension::Provisioned, values[index].1);
            }
        }
        let cards = cards(&[CARD.to_owned()]);
        let ahead = metering::forecast(&readings, &november, november.span().from);
        let _ = rate(&ahead, &cards, &november, &account());
        if let Ok(bill) = rate(&readings, &cards, &november, &account()) {
            let issuer = Issuer { name: "host".to_owned(), region: None };
            let as_of = november.span().from;
            if let Ok(open) = Invoice::open(bill, Vec::new(), issuer, as_of, None) {
                for format in metering::Format::ALL {
                    let text = open.render(format).expect("text");
                    if format == metering::Format::Json {
                        prop_assert_eq!(Invoice::parse(&text), Ok(open.clone()));
                    }
                }
            }
        }
    }
}
