//! Bills that were wrong once, a test each.
#![forbid(unsafe_code)]

use metering::{
    Account, Bill, Charge, Dimension, Exact, Invoice, Issuer, Line, Mark, Note, NoteKind, Period, RateCard, RateCards,
    Reading, Registers, rate,
};
use proptest::prelude::*;
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
    Account { tenant: TenantId(1), name: "acme".to_owned(), ..Account::default() }
}

/// A gold volume that holds 1 GiB since `since`, read at `at`.
fn reading(sequence: u64, since: u64, at: u64) -> Reading {
    let first = Reading::first(VolumeId(1), TenantId(1), ClassId(1), MeterTime(at), at);
    let registers = first.registers.with(Dimension::Provisioned, GIB * u128::from(at - since));
    let mark = if sequence == 0 { first.mark } else { Mark::Usual };
    Reading { sequence, mark, registers, ..first }
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

/// P7. Of a volume that was silver for ten days, the readings that say so are lost: the bill is as it was, or says that it may not be.
#[test]
fn a_change_and_back_that_was_lost_is_told() {
    let november = month("2026-11");
    let (begin, end) = ends(&november);
    let moments = [begin, begin + 10 * DAY_MS, begin + 20 * DAY_MS, end];
    let mut readings: Vec<Reading> = (0..).zip(moments).map(|(sequence, at)| reading(sequence, begin, at)).collect();
    readings[1].class = ClassId(0);
    for (reading, changes) in readings.iter_mut().zip([0, 1, 2, 2]) {
        reading.changes = changes;
    }
    let whole = bill(&readings, &november);
    readings.drain(1..3);
    let lossy = bill(&readings, &november);
    let amounts = |bill: &Bill| bill.lines.iter().map(|line| line.amount.to_string()).collect::<Vec<_>>();
    let is_told = lossy.notes.iter().any(Note::is_doubt);
    assert!(amounts(&whole) == amounts(&lossy) || is_told, "{:?}, then {:?}", amounts(&whole), amounts(&lossy));
}

/// P7. A card that says the same under another name changes nothing: neither what is free nor a minimum.
#[test]
fn a_card_that_says_the_same_changes_no_bill() {
    let november = month("2026-11");
    let (begin, end) = ends(&november);
    let middle = u64::midpoint(begin, end);
    let gone = [reading(0, begin, begin), reading(1, begin, middle)];
    let next = |card: &str| card.replace("a card", "same").replace("2026-01-01T00", "2026-11-15T23");
    let minimum = CARD.replace("\"classes\"", "\"minimum\": \"5\", \"classes\"");
    let free = CARD.replace("\"unit\": \"gib_month\",", "\"unit\": \"gib_month\", \"free\": \"0.5\",");
    for card in [minimum, free] {
        let total = |documents: &[String]| {
            let bill = rate(&gone, &cards(documents), &november, &account()).expect("a bill");
            issue(bill, Vec::new(), "1", november.span().to).expect("an invoice").total().to_string()
        };
        assert_eq!(total(&[card.clone(), next(&card)]), total(std::slice::from_ref(&card)), "{card}");
    }
}

/// P7. Nor does a card that changes another price: what is free of this one stays whole.
#[test]
fn a_card_that_changes_another_price_leaves_this_one_whole() {
    let november = month("2026-11");
    let (begin, end) = ends(&november);
    let free = CARD.replacen(
        "\"unit\": \"gib_month\", \"tiers\": [{ \"price\": \"10\"",
        "\"unit\": \"gib_month\", \"free\": \"0.5\", \"tiers\": [{ \"price\": \"10\"",
        1,
    );
    assert_ne!(free, CARD);
    let next = free.replace("\"price\": \"1\"", "\"price\": \"2\"").replace("2026-01-01T00", "2026-11-15T23");
    let gone = [reading(0, begin, begin), reading(1, begin, u64::midpoint(begin, end))];
    let amounts = |documents: &[String]| -> Vec<String> {
        let bill = rate(&gone, &cards(documents), &november, &account()).expect("a bill");
        bill.lines.iter().map(|line| line.amount.to_string()).collect()
    };
    assert_eq!(amounts(&[free.clone(), next]), ["0.00"], "half a GiB-month is free, whenever it is used");
}

/// P7. A minimum is due for as long as there was an account, whether anything was used or not.
#[test]
fn a_minimum_is_due_for_the_time_of_the_account() {
    let november = month("2026-11");
    let (begin, end) = (november.span().from, november.span().to);
    let card = CARD.replace("\"classes\"", "\"minimum\": \"30\", \"classes\"");
    let next = card.replace("\"30\"", "\"60\"").replace("2026-01-01T00:00:00Z", "2026-11-20T23:00:00Z");
    let total = |since: i64, until: i64, documents: &[String]| {
        let day = |day: i64| begin + jiff::SignedDuration::from_hours(24 * day);
        let account = Account { since: Some(day(since)), until: Some(day(until)), ..account() };
        let bill = rate(&[], &cards(documents), &november, &account).expect("a bill");
        issue(bill, Vec::new(), "1", end).expect("an invoice").total().to_string()
    };
    for (since, until, expected) in
        [(0, 30, "30.00"), (-5, 40, "30.00"), (10, 30, "20.00"), (10, 11, "1.00"), (40, 50, "0.00"), (20, 10, "0.00")]
    {
        assert_eq!(total(since, until, std::slice::from_ref(&card)), expected, "{since} to {until}");
    }
    assert_eq!(total(0, 30, &[card.clone(), next.clone()]), "40.00", "each card by its share of the month");
    assert_eq!(total(25, 30, &[card, next]), "10.00");
}

/// P7. A tenant that moves to another time zone is billed for each moment once.
#[test]
fn a_tenant_that_moves_pays_for_each_moment_once() {
    let (october, elsewhere) = (month("2026-10"), month("2026-11"));
    let november = october.next("Pacific/Auckland").expect("a month");
    let december = november.next("Europe/Berlin").expect("a month");
    assert!(elsewhere.span() != november.span() && november.span().to < elsewhere.span().to);
    let (begin, end) = (ends(&october).0, ends(&december).1);
    let readings = [reading(0, begin, begin), reading(1, begin, end)];
    let months = [october, november, december];
    let all = months.iter().fold(Exact::zero(), |sum, month| sum + used(&bill(&readings, month).lines));
    assert_eq!(all, Exact::from(GIB * u128::from(end - begin)));
    for month in &months {
        assert_eq!(bill(&readings, month).lines[0].amount.to_string(), "10.00", "1 GiB for all of a month");
    }
}

/// P7. What is shown as the price of a month is what that costs on the bill, but for what is free.
#[test]
fn a_preview_is_the_price_of_a_month() {
    let november = month("2026-11");
    let (begin, end) = ends(&november);
    let written = "{ \"dimension\": \"written\", \"unit\": \"gib_month\", \"free\": \"3\", \"tiers\": [{ \"up_to\": \"2\", \"price\": \"0.5\" }, { \"price\": \"0.25\" }] }, ";
    let card = CARD.replacen("\"prices\": [", &format!("\"prices\": [ {written}"), 1);
    let parsed = RateCard::parse(&card).expect("a card");
    let gib = 1_u64 << 30;
    let amounts = |lines: &[Line]| lines.iter().map(|line| line.amount.to_string()).collect::<Vec<_>>();
    let held = [(Dimension::Provisioned, 100 * gib), (Dimension::Written, 7 * gib), (Dimension::Reads, 5)];
    let lines = metering::preview(&parsed, ClassId(0), &november, &held).expect("lines");
    assert_eq!(amounts(&lines), ["100.00", "1.00", "1.25"], "reads have no price");
    let mut all_month = held_of(1, 100, begin, end);
    all_month.iter_mut().for_each(|reading| reading.class = ClassId(0));
    let billed = rate(&all_month, &cards(&[card]), &november, &account()).expect("a bill");
    assert_eq!(amounts(&billed.lines), ["100.00"]);
    assert_eq!((lines[0].span, &lines[0].card), (billed.lines[0].span, &billed.lines[0].card));
    assert!(metering::preview(&parsed, ClassId(7), &november, &held).is_err(), "no such class");
    let huge = [(Dimension::Provisioned, u64::MAX)];
    assert!(metering::preview(&parsed, ClassId(1), &november, &huge).is_ok());
}

/// A volume that holds so many GiB from `begin` to `end`.
fn held_of(id: u64, gib: u128, begin: u64, end: u64) -> [Reading; 2] {
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
    let mut readings = [(1, 1), (2, 3)].map(|(id, gib)| held_of(id, gib, begin, end)).concat();
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

/// What the books of a tenant say of `readings`.
fn book_of(tenant: u64, readings: &[Reading]) -> Vec<Reading> {
    use metering::ledger::{decode_readings, encode_readings};
    let own: Vec<Reading> = readings.iter().filter(|reading| reading.tenant == TenantId(tenant)).cloned().collect();
    let book = encode_readings(&own);
    book.iter().flat_map(|payload| decode_readings(TenantId(tenant), payload).expect("readings")).collect()
}

/// P7, P8. From the readings that its own book has of it a tenant finds its bill, also of a volume that it gave away, and of one
/// that came back.
#[test]
fn the_book_of_a_tenant_that_gave_a_volume_away_has_all_of_its_bill() {
    let november = month("2026-11");
    let (begin, _) = ends(&november);
    let days = |days| begin + days * DAY_MS;
    let whose =
        |tenant, mark, changes, reading: Reading| Reading { tenant: TenantId(tenant), mark, changes, ..reading };
    let readings = [
        reading(0, begin, begin),
        whose(1, Mark::Ends, 0, reading(1, begin, days(10))),
        whose(2, Mark::Begins, 1, reading(2, begin, days(10))),
        whose(2, Mark::Ends, 1, reading(3, begin, days(14))),
        whose(1, Mark::Begins, 2, reading(4, begin, days(14))),
        whose(1, Mark::Usual, 2, reading(5, begin, days(15))),
        whose(1, Mark::Ends, 2, reading(6, begin, days(15))),
    ];
    for (tenant, used_days) in [(1, 11), (2, 4)] {
        let account = Account { tenant: TenantId(tenant), ..account() };
        let bill =
            |readings: &[Reading]| rate(readings, &cards(&[CARD.to_owned()]), &november, &account).expect("a bill");
        assert_eq!(used(&bill(&readings).lines), Exact::from(GIB * u128::from(used_days * DAY_MS)));
        assert_eq!(bill(&book_of(tenant, &readings)), bill(&readings));
        let kinds: Vec<NoteKind> = bill(&readings).notes.into_iter().map(|note| note.kind).collect();
        assert_eq!(kinds, [NoteKind::Ends]);
    }
    // What another tenant used is not billed either when the readings that say so are lost, and that is told.
    for lost in [1, 4] {
        let mut readings = readings.to_vec();
        readings.remove(lost);
        let bill = bill(&readings, &november);
        assert!(used(&bill.lines) < Exact::from(GIB * u128::from(11 * DAY_MS)));
        assert!(bill.notes.iter().any(|note| note.kind == NoteKind::Gap), "{:?}", bill.notes);
    }
}

/// P7. An invoice whose volumes pay another sum than its line says is none: in FOCUS they are what is paid.
#[test]
fn an_invoice_of_which_the_shares_do_not_add_up_is_refused() {
    let november = month("2026-11");
    let (begin, end) = ends(&november);
    let invoice = issue(bill(&held_of(1, 3, begin, end), &november), Vec::new(), "1", november.span().to);
    let json = invoice.expect("an invoice").render(metering::Format::Json).expect("JSON");
    let mut document: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert!(Invoice::parse(&document.to_string()).is_ok());
    document["lines"][0]["charge"]["resources"][0]["amount"] = "3.00".into();
    assert!(Invoice::parse(&document.to_string()).is_err(), "30.00 are to pay, and 3.00 in FOCUS");
}

fn extreme() -> impl Strategy<Value = u64> {
    let near = 1_793_400_000_000_u64..1_796_200_000_000;
    prop_oneof![Just(0_u64), Just(u64::MAX), Just(1_u64 << 63), any::<u64>(), 0..9_u64, near.clone(), near]
}

fn extreme_reading() -> impl Strategy<Value = Reading> {
    let register = prop_oneof![Just(0_u128), Just(u128::MAX), Just(1 << 127), any::<u128>()];
    let numbers = (1..3_u64, 1..3_u64, 0..2_u64, prop_oneof![0..3_u64, extreme()], prop_oneof![0..9_u64, extreme()]);
    let marked = (proptest::sample::select(Mark::ALL.to_vec()), prop_oneof![0..3_u64, extreme()], extreme());
    (numbers, marked, extreme(), extreme(), register).prop_map(
        |((resource, tenant, class, epoch, sequence), (mark, changes, estimated_ms), at, wall_ms, value)| Reading {
            resource: VolumeId(resource),
            tenant: TenantId(tenant),
            class: ClassId(class),
            epoch: Epoch(epoch),
            sequence,
            mark,
            changes,
            estimated_ms,
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
            let mut counts: Vec<_> = readings.iter().map(|reading| (reading.changes, reading.estimated_ms)).collect();
            counts.sort();
            for (index, reading) in readings.iter_mut().enumerate() {
                reading.sequence = u64::try_from(index).expect("few");
                reading.epoch = Epoch(1);
                reading.at = ats[index];
                reading.changes = counts[index].0;
                reading.estimated_ms = u64::try_from(index).expect("few");
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
