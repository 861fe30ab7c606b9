//! Invoices of a month that was lived in `rating/world.rs`, and small ones by hand.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use units::{ClassId, Epoch, MeterTime, VolumeId};

use super::*;
use crate::rating::SAMPLE_CARD as CARD;
use crate::rating::{Account, CorrectionKind, Exact, RateCard, RateCards, rate};
use crate::reading::{Dimension, Mark, Reading, Registers};

const GIB: u128 = 1 << 30;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a moment")
}

fn november() -> Period {
    Period::of_month("2026-11", "Europe/Berlin").expect("a month")
}

fn december() -> Period {
    Period::of_month("2026-12", "Europe/Berlin").expect("a month")
}

fn account() -> Account {
    let names = [(1, "web"), (2, "<b>db</b>"), (3, "=cmd()")];
    Account {
        tenant: TenantId(2),
        name: "acme & \"sons\"".to_owned(),
        resources: names.into_iter().map(|(id, name)| (VolumeId(id), name.to_owned())).collect(),
        ..Account::default()
    }
}

fn issuer() -> Issuer {
    Issuer {
        name: "Host <Ltd>".to_owned(),
        region: Some(Region { id: "eu-1".to_owned(), name: "Europe 1".to_owned() }),
    }
}

fn cards(json: &str) -> RateCards {
    let mut cards = RateCards::default();
    cards.insert(RateCard::parse(json).expect("a card"), None).expect("it fits");
    cards
}

/// Volumes that hold 10, 20 and 30 GiB from a month's beginning to its end, and 3,600,000 reads of each.
fn readings(period: &Period) -> Vec<Reading> {
    let span = period.span();
    let length = u128::try_from(span.to.as_millisecond() - span.from.as_millisecond()).expect("it ends later");
    let mut readings = Vec::new();
    for id in 1..=3 {
        let [from, to] = [span.from, span.to].map(|at| u64::try_from(at.as_millisecond()).expect("after 1970"));
        let first = Reading::first(VolumeId(id), TenantId(2), ClassId(1), MeterTime(from), from);
        let registers = first.registers.with(Dimension::Written, GIB * 10 * u128::from(id) * length);
        let registers = registers.with(Dimension::Reads, 3_600_000);
        readings.push(first.clone());
        readings.push(Reading { sequence: 1, mark: Mark::Usual, at: MeterTime(to), wall_ms: to, registers, ..first });
    }
    readings
}

fn bill(period: &Period) -> Bill {
    rate(&readings(period), &cards(CARD), period, &account()).expect("a bill")
}

fn issued() -> Invoice {
    Invoice::issue(bill(&november()), Vec::new(), issuer(), "2026-0007", at("2026-12-01T09:00:00Z"))
        .expect("an invoice")
}

/// Every other reading of volume 2 was wrong: it held 40 GiB.
fn rerated() -> Bill {
    let readings = readings(&november()).into_iter().map(|reading| {
        let written = reading.registers.value(Dimension::Written) * if reading.resource == VolumeId(2) { 2 } else { 1 };
        Reading { registers: reading.registers.with(Dimension::Written, written), ..reading }
    });
    rate(&readings.collect::<Vec<_>>(), &cards(CARD), &november(), &account()).expect("a bill")
}

/// P7. What a tenant reads: 10 of 60 GiB-months are free, 1 of 10.8 million reads, the rest is charged, line by line.
#[test]
fn an_invoice_reads_well() {
    let text = issued().render(Format::Text).expect("text");
    let expected = "\
Invoice 2026-0007
From Host <Ltd>
For acme & \"sons\" (tenant 2)
Europe/Berlin: 2026-11-01 00:00:00+01:00 to 2026-12-01 00:00:00+01:00
Issued 2026-12-01 10:00:00+01:00.

   what                      quantity  unit              price     EUR
1  gold, written, free             10  GiB-Months            0    0.00
     web                   (1.666667)                           (0.00)
     <b>db</b>             (3.333333)                           (0.00)
     =cmd()                       (5)                           (0.00)
2  gold, written, tier 1           50  GiB-Months         0.12    6.00
     web                   (8.333333)                           (1.00)
     <b>db</b>            (16.666667)                           (2.00)
     =cmd()                      (25)                           (3.00)
3  gold, reads, free                1  1000000 Requests      0    0.00
     web                   (0.333333)                           (0.00)
     <b>db</b>             (0.333333)                           (0.00)
     =cmd()                (0.333333)                           (0.00)
4  gold, reads, tier 1            9.8  1000000 Requests    0.4    3.92
     web                   (3.266667)                           (1.30)
     <b>db</b>             (3.266667)                           (1.31)
     =cmd()                (3.266667)                           (1.31)
   to pay                                                         9.92
";
    assert_eq!(text, expected, "{text}");
}

/// P7. An invoice is issued when its month is over, has a number, and goes through its JSON whole; what was changed there is refused.
#[test]
fn an_issued_invoice_is_what_it_was() {
    let early = Invoice::issue(bill(&november()), Vec::new(), issuer(), "1", at("2026-11-30T22:59:59Z"));
    assert!(matches!(early, Err(InvoiceError::NotOver { .. })), "{early:?}");
    for id in ["", "a b", "<7>", &"7".repeat(65)] {
        let wrong = Invoice::issue(bill(&november()), Vec::new(), issuer(), id, at("2026-12-01T09:00:00Z"));
        assert!(matches!(wrong, Err(InvoiceError::BadId(_))), "{id}");
    }
    let json = issued().render(Format::Json).expect("JSON");
    assert_eq!(Invoice::parse(&json), Ok(issued()));
    let changes = [
        ("\"total\": \"9.92\"", "\"total\": \"9.91\""),
        ("\"amount\": \"6.00\"", "\"amount\": \"5.00\""),
        ("\"number\": 2", "\"number\": 3"),
        ("\"form\": \"aljibe invoice 1\"", "\"form\": \"aljibe invoice 2\""),
        ("\"tenant_name\"", "\"tenant_nam\""),
        ("\"quantity\": \"50\"", "\"quantity\": \"100/2\""),
    ];
    for (from, to) in changes {
        assert!(json.contains(from), "{from} in {json}");
        let error = Invoice::parse(&json.replacen(from, to, 1)).expect_err(to);
        assert!(matches!(error, InvoiceError::Unreadable(_)), "{error}");
    }
}

/// P7. A line with more decimals than the currency can be paid: one more line says what the difference is.
#[test]
fn a_sum_that_cannot_be_paid_is_rounded_on_a_line() {
    let card = CARD.replace("half_even\"", "half_even\", \"digits\": 4").replace("0.12", "0.123456");
    let bill = rate(&readings(&november()), &cards(&card), &november(), &account()).expect("a bill");
    let invoice = Invoice::issue(bill, Vec::new(), issuer(), "1", at("2026-12-01T09:00:00Z")).expect("an invoice");
    let last = invoice.lines().last().expect("a line");
    assert_eq!(last.charge, Charge::Rounding);
    assert_eq!((last.amount.to_string(), invoice.total().to_string()), ("-0.0028".to_owned(), "10.09".to_owned()));
    let sum = invoice.lines().iter().fold(Exact::zero(), |sum, line| sum + line.amount.exact());
    assert_eq!(sum, invoice.total().exact());
    let json = invoice.render(Format::Json).expect("JSON");
    assert_eq!(Invoice::parse(&json), Ok(invoice));
}

/// P7. What was wrong is taken back and put right on the next invoice, with the time it is about, the reason, and where it
/// stood; a second correction takes back the first; what nobody changed stays.
#[test]
fn corrections_are_reversals_with_a_reason() {
    let first = issued();
    let lines = correct(std::slice::from_ref(&first), &rerated(), "volume web2 was read wrong").expect("corrections");
    let kinds: Vec<_> = lines.iter().map(|line| line.correction.as_ref().expect("a correction").kind).collect();
    // Who used what is free, and what is not, is another too; the reads are as they were.
    let pair = [CorrectionKind::Reversal, CorrectionKind::Corrected];
    assert_eq!(kinds, [pair, pair].concat());
    assert!(lines.iter().all(|line| line.span == november().span()));
    let december_at = at("2027-01-01T09:00:00Z");
    let second =
        Invoice::issue(bill(&december()), lines.clone(), issuer(), "2026-0008", december_at).expect("an invoice");
    // 20 GiB-months more, at 0.12.
    let own = Invoice::issue(bill(&december()), Vec::new(), issuer(), "x", december_at).expect("an invoice");
    assert_eq!(second.total().exact() - own.total().exact(), "2.40".parse_exact());
    assert_eq!(first, issued(), "the first one is what it was");
    let again = correct(&[first.clone(), second.clone()], &rerated(), "again").expect("corrections");
    assert_eq!(again, [], "it is right now");
    let back = correct(&[first.clone(), second.clone()], &bill(&november()), "no, it was right").expect("corrections");
    let reversal = back[0].correction.clone().expect("a correction");
    assert_eq!((reversal.invoice.as_str(), reversal.kind), ("2026-0008", CorrectionKind::Reversal));
    let sum = back.iter().chain(&lines).fold(Exact::zero(), |sum, line| sum + line.amount.exact());
    assert!(sum.is_zero(), "{sum}");
}

/// P7. A line that should not have been is taken back and nothing comes instead; taken back, it is not taken back again.
#[test]
fn a_line_that_should_not_have_been_is_taken_back_once() {
    let no_reads = readings(&november())
        .into_iter()
        .map(|reading| Reading { registers: reading.registers.with(Dimension::Reads, 0), ..reading });
    let bill_of = |readings: Vec<Reading>| rate(&readings, &cards(CARD), &november(), &account()).expect("a bill");
    let right = bill_of(no_reads.collect());
    let lines = correct(&[issued()], &right, "nothing was read").expect("corrections");
    let summary = |lines: &[Line]| -> Vec<(CorrectionKind, String, Option<u32>, String)> {
        let of_line = |line: &Line| {
            let correction = line.correction.clone().expect("a correction");
            (correction.kind, correction.invoice, correction.line, line.amount.to_string())
        };
        lines.iter().map(of_line).collect()
    };
    let entry = |kind, invoice: &str, line, amount: &str| (kind, invoice.to_owned(), line, amount.to_owned());
    let expected = [
        entry(CorrectionKind::Reversal, "2026-0007", Some(3), "0.00"),
        entry(CorrectionKind::Reversal, "2026-0007", Some(4), "-3.92"),
    ];
    assert_eq!(summary(&lines), expected);
    let next = Invoice::issue(bill(&december()), lines, issuer(), "2026-0008", at("2027-01-01T09:00:00Z"));
    let invoices = [issued(), next.expect("an invoice")];
    assert_eq!(correct(&invoices, &right, "again"), Ok(Vec::new()));
    let back = correct(&invoices, &bill(&november()), "it was read after all").expect("corrections");
    let expected = [
        entry(CorrectionKind::Corrected, "2026-0008", None, "0.00"),
        entry(CorrectionKind::Corrected, "2026-0008", None, "3.92"),
    ];
    assert_eq!(summary(&back), expected);
}

/// P7. A correction is of an earlier month, on another invoice, and says why.
#[test]
fn a_correction_needs_an_invoice_and_a_reason() {
    let wrong = |result: Result<Vec<Line>, InvoiceError>| result.expect_err("no correction");
    assert_eq!(wrong(correct(&[issued()], &rerated(), " ")), InvoiceError::NoReason);
    assert_eq!(wrong(correct(&[], &rerated(), "why")), InvoiceError::NothingIssued("2026-11".to_owned()));
    let lines = correct(&[issued()], &rerated(), "why").expect("corrections");
    let january = at("2027-01-01T09:00:00Z");
    let same_id = Invoice::issue(bill(&december()), lines.clone(), issuer(), "2026-0007", january);
    assert_eq!(same_id, Err(InvoiceError::BadCorrection(1)));
    let same_month = Invoice::issue(bill(&november()), lines, issuer(), "2026-0009", january);
    assert_eq!(same_month, Err(InvoiceError::BadCorrection(1)));
    let none = vec![bill(&november()).lines[0].clone()];
    let no_correction = Invoice::issue(bill(&december()), none, issuer(), "2026-0009", january);
    assert_eq!(no_correction, Err(InvoiceError::BadCorrection(1)));
}

/// P7. An open month says that nothing is final, and what it will come to.
#[test]
fn an_open_month_has_a_forecast() {
    let now = at("2026-11-11T00:00:00Z");
    let forecast = Some(rerated());
    let mut until_now = readings(&november());
    for reading in &mut until_now {
        reading.wall_ms = reading.wall_ms.min(u64::try_from(now.as_millisecond()).expect("after 1970") - 60_000);
        reading.at = MeterTime(reading.wall_ms);
    }
    let bill = rate(&until_now, &cards(CARD), &november(), &account()).expect("a bill");
    let open = Invoice::open(bill.clone(), Vec::new(), issuer(), now, forecast).expect("an open month");
    assert_eq!((bill.notes.len(), open.notes().len()), (3, 0), "no reading is missing yet");
    assert_eq!(open.id(), None);
    let text = open.render(Format::Text).expect("text");
    assert!(text.contains("nothing of it is final"), "{text}");
    assert!(text.contains("forecast of the month, if all goes on as in the last day"), "{text}");
    assert!(text.contains("12.32"), "{text}");
    assert_eq!(Invoice::parse(&open.render(Format::Json).expect("JSON")), Ok(open));
}

/// P7. What may be missing from a bill is told first, and a thousand volumes do not fill a page with notes.
#[test]
fn doubts_are_told_first() {
    let split = rate(&many_splits(30), &cards(CARD), &november(), &account()).expect("a bill");
    let open = Invoice::open(split, Vec::new(), issuer(), at("2026-11-30T23:00:00Z"), None).expect("an open month");
    for format in [Format::Text, Format::Html] {
        let text = open.render(format).expect("text");
        let kinds = [": not metered", ": use from", ": its last reading"];
        let is_note = |line: &&str| kinds.iter().any(|kind| line.contains(kind));
        let notes: Vec<&str> = text.lines().filter(is_note).collect();
        assert_eq!(notes.len(), 20, "{text}");
        assert!(notes[0].contains("volume 31: not metered"), "{}", notes[0]);
        assert!(text.contains("and 41 more, which are in its JSON"), "{text}");
    }
}

/// Readings of volumes from before the month to after it, and of one more that was not metered for a while.
fn many_splits(count: u64) -> Vec<Reading> {
    let begin = u64::try_from(november().span().from.as_millisecond()).expect("after 1970");
    let reading = |id, epoch, sequence, wall_ms, written| Reading {
        resource: VolumeId(id),
        epoch: Epoch(epoch),
        sequence,
        mark: match (epoch, sequence) {
            (1, 0) => Mark::Begins,
            (1, _) => Mark::Ends,
            _ => Mark::Usual,
        },
        at: MeterTime(wall_ms),
        wall_ms,
        registers: Registers::default().with(Dimension::Written, written),
        ..readings(&november())[0].clone()
    };
    let across =
        (1..=count).flat_map(|id| [reading(id, 1, 0, begin - 500, 0), reading(id, 1, 1, begin + 500, 1 << 40)]);
    let gap = [reading(count + 1, 1, 0, begin + 1, 0), reading(count + 1, 2, 0, begin + 3_000, 0)];
    let end = begin + 30 * 86_400_000 - 1_000;
    across.chain(gap).chain([reading(count + 1, 2, 1, end, 1 << 40)]).collect()
}

/// P8. A name can neither run in the browser of who reads the bill, nor in a spreadsheet.
#[test]
fn names_stay_names() {
    let invoice = issued();
    let html = invoice.render(Format::Html).expect("a page");
    assert!(html.contains("&lt;b&gt;db&lt;/b&gt;") && html.contains("acme &amp; &quot;sons&quot;"), "{html}");
    for wrong in ["<b>", "Host <Ltd>", "<script", "http://", "https://", "url(", "src="] {
        assert!(!html.contains(wrong), "{wrong}");
    }
    let mut hostile = account();
    hostile.name = "=HYPERLINK(\"x\")".to_owned();
    let bill = rate(&readings(&november()), &cards(CARD), &november(), &hostile).expect("a bill");
    let invoice = Invoice::issue(bill, Vec::new(), issuer(), "1", at("2026-12-01T09:00:00Z")).expect("an invoice");
    for row in rows(&invoice.render(Format::Csv).expect("CSV")) {
        assert_eq!(row["tenant_name"], "'=HYPERLINK(\"x\")");
    }
}

fn rows(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    reader.deserialize().map(|row| row.expect("a row")).collect()
}

/// An invoice with all that there is: usage, what is free, minimums, a correction.
fn with_everything() -> Invoice {
    let lines = correct(&[issued()], &rerated(), "volume web2 was read wrong").expect("corrections");
    let card =
        CARD.replace("\"minimum\": \"5.00\"", "\"minimum\": \"50\"").replace("half_even\"", "up\", \"digits\": 5");
    let bill = rate(&readings(&december()), &cards(&card), &december(), &account()).expect("a bill");
    Invoice::issue(bill, lines, issuer(), "2026-0008", at("2027-01-01T09:00:00Z")).expect("an invoice")
}

/// P7. The rows of FOCUS add up to the invoice, name all that the specification asks for, and say which are corrections.
#[test]
fn focus_rows_add_up_to_the_invoice() {
    let invoice = with_everything();
    let rows = rows(&invoice.render(Format::Focus).expect("CSV"));
    let mandatory: BTreeSet<&str> = "BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodStart \
        BillingPeriodEnd ChargeCategory ChargeClass ChargeDescription ChargePeriodStart ChargePeriodEnd ContractedCost \
        EffectiveCost ListCost InvoiceIssuerName ProviderName PublisherName PricingQuantity PricingUnit ServiceCategory \
        ServiceName x_HostProviderName x_ServiceProviderName x_InvoiceDetailId"
        .split_whitespace()
        .collect();
    let number = |text: &str| text.parse_exact();
    let mut billed = Exact::zero();
    for row in &rows {
        for column in &mandatory {
            assert!(row.contains_key(*column), "{column}");
        }
        billed = billed + number(&row["BilledCost"]);
        let is_correction = row["ChargeClass"] == "Correction";
        assert_eq!(is_correction, row["ChargePeriodStart"] == "2026-10-31T23:00:00Z");
        assert_eq!(is_correction, row["x_CorrectedInvoiceId"] == "2026-0007");
        assert_eq!(row["BillingPeriodStart"], "2026-11-30T23:00:00Z");
        if row["ChargeCategory"] == "Usage" {
            let product = number(&row["ListUnitPrice"]) * number(&row["PricingQuantity"]);
            let off = (product - number(&row["ListCost"])).abs();
            assert!(off < "0.00000000000000001".parse_exact(), "{row:?}");
            assert!(row["ResourceId"].starts_with("volume-"), "{row:?}");
        } else {
            assert_eq!((row["ChargeCategory"].as_str(), row["PricingQuantity"].as_str()), ("Adjustment", ""));
        }
    }
    assert_eq!(billed, invoice.total().exact());
    assert!(rows.len() > invoice.lines().len());
}

/// P7. The public validator of FOCUS finds nothing wrong, where it is there: `ALJIBE_FOCUS_PYTHON` is the Python that has it.
#[test]
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "another program is run, on a file")]
fn the_validator_of_focus_agrees() {
    let Some(python) = std::env::var_os("ALJIBE_FOCUS_PYTHON") else {
        println!("SKIPPED: the_validator_of_focus_agrees: ALJIBE_FOCUS_PYTHON is not set");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("focus.csv");
    let csv = with_everything().render(Format::Focus).expect("CSV");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/metering/focus.py");
    // It must see what is wrong where something is.
    for (csv, is_right) in [(csv.clone(), true), (csv.replace(",Storage,", ",Storrage,"), false)] {
        std::fs::write(&file, csv).expect("written");
        let output = std::process::Command::new(&python).arg(script).arg(&file).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        println!("{said}");
        assert_eq!(output.status.success(), is_right, "{said}");
    }
}

trait ParseExact {
    fn parse_exact(&self) -> Exact;
}

impl ParseExact for str {
    fn parse_exact(&self) -> Exact {
        let (sign, digits) = self.strip_prefix('-').map_or((false, self), |digits| (true, digits));
        let exact = crate::Decimal::parse(digits).expect(self).exact();
        if sign { -exact } else { exact }
    }
}
