//! The bill beside models that were written another way.

use std::collections::{BTreeMap, BTreeSet};

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, Zero};
use proptest::prelude::*;
use units::{ClassId, Epoch, MeterTime, TenantId, VolumeId};

use super::card::tests::CARD;
use super::period::{milliseconds, moment};
use super::world::{CardSpec, MONTHS, PriceSpec, World};
use super::*;
use crate::reading::{Mark, Reading, Registers};

const GIB: u128 = 1 << 30;

/// A line as the model knows it: part, class, what, quantity, amount in the card's last decimal.
type Known = BTreeMap<(usize, Option<ClassId>, String), (BigRational, BigInt)>;

fn account(tenant: u64) -> Account {
    Account { tenant: TenantId(tenant), name: "acme".to_owned(), ..Account::default() }
}

/// What the world knows that a tenant has to pay, line by line.
fn known(world: &World, tenant: TenantId) -> Known {
    let mut known = Known::new();
    let span = world.period.span();
    let month = BigInt::from(milliseconds(span.to) - milliseconds(span.from));
    let begin = |part: usize| world.specs.get(part).map_or(span.to, |spec| spec.from.max(span.from));
    let share = |from: usize, end: usize| {
        BigRational::new(BigInt::from(milliseconds(begin(end)) - milliseconds(begin(from))), month.clone())
    };
    let classes: BTreeSet<ClassId> =
        world.truth.keys().filter(|(whose, ..)| *whose == tenant).map(|(_, _, class, _)| *class).collect();
    let scale = |part: usize| BigInt::from(10).pow(u32::from(world.specs[part].digits));
    let last = world.specs.len() - 1;
    let mut all = BigRational::zero();
    for class in classes {
        let mut of_class = BigRational::zero();
        for dimension in Dimension::ALL {
            let said = |part: usize| {
                let spec = world.specs.get(part)?;
                let price = spec.classes[&class].1.iter().find(|price| price.dimension == dimension)?;
                Some((price, spec.rule, spec.digits))
            };
            let mut part = 0;
            while part <= last {
                let end = (part + 1..=last).find(|next| said(*next) != said(part)).unwrap_or(last + 1);
                if let Some((price, ..)) = said(part) {
                    let used = |part| world.truth.get(&(tenant, part, class, dimension)).copied().unwrap_or(0);
                    let used = (part..end).map(used).sum();
                    for (tier, quantity, amount) in priced(price, used, &month, &share(part, end), &world.specs[part]) {
                        of_class += BigRational::new(amount.clone(), scale(part));
                        let what = format!("{} {tier}", dimension.name());
                        known.insert((part, Some(class), what), (quantity, amount));
                    }
                }
                part = end;
            }
        }
        let minimum = |spec: &CardSpec| spec.classes[&class].0;
        all += of_class.clone() + shortfall(&mut known, Some(class), world, (minimum, &share), &of_class);
    }
    shortfall(&mut known, None, world, (|spec: &CardSpec| spec.minimum, &share), &all);
    known
}

/// Adds what is missing to a minimum, and says how much that is.
fn shortfall(
    known: &mut Known,
    class: Option<ClassId>,
    world: &World,
    (minimum, share): (impl Fn(&CardSpec) -> u64, impl Fn(usize, usize) -> BigRational),
    charged: &BigRational,
) -> BigRational {
    let of_part = |(part, spec)| BigRational::from_integer(BigInt::from(minimum(spec))) * share(part, part + 1);
    let minimum: BigRational = world.specs.iter().enumerate().map(of_part).sum();
    let spec = world.specs.last().expect("a card");
    let scale = BigRational::from_integer(BigInt::from(10).pow(u32::from(spec.digits)));
    let missing = rounded(spec.rule, &((minimum - charged) * &scale));
    if missing > BigInt::zero() {
        known.insert((0, class, "minimum".to_owned()), (BigRational::zero(), missing.clone()));
        return BigRational::from_integer(missing) / scale;
    }
    BigRational::zero()
}

/// Each tier's part as an overlap of intervals on the line of quantities.
fn priced(
    price: &PriceSpec,
    used: u128,
    month: &BigInt,
    share: &BigRational,
    spec: &CardSpec,
) -> Vec<(String, BigRational, BigInt)> {
    let hour = BigInt::from(3_600_000);
    let (bytes, time) = match price.unit {
        "gib_month" => (1_u64 << 30, month.clone()),
        "gb_month" => (1_000_000_000, month.clone()),
        "tib_month" => (1 << 40, month.clone()),
        "tb_month" => (1_000_000_000_000, month.clone()),
        "gib_hour" => (1 << 30, hour),
        "gb_hour" => (1_000_000_000, hour),
        "gib" => (1 << 30, BigInt::from(1)),
        "gb" => (1_000_000_000, BigInt::from(1)),
        "tib" => (1 << 40, BigInt::from(1)),
        "tb" => (1_000_000_000_000, BigInt::from(1)),
        "thousand_requests" => (1_000, BigInt::from(1)),
        "million_requests" => (1_000_000, BigInt::from(1)),
        other => panic!("{other}"),
    };
    let total = BigRational::new(BigInt::from(used), BigInt::from(bytes) * time);
    let free = BigRational::from_integer(BigInt::from(price.free)) * share;
    let zero = BigRational::zero();
    let overlap = |low: &BigRational, high: &BigRational| (high.min(&total) - low).max(zero.clone());
    let mut found = vec![("free".to_owned(), overlap(&zero, &free), 0_u64)];
    let beyond = overlap(&free, &total);
    let mut low = free.clone();
    let ends: Vec<BigRational> = price
        .tiers
        .iter()
        .map(|(end, _)| match end {
            Some(end) => BigRational::from_integer(BigInt::from(*end)) * share + &free,
            None => total.clone().max(free.clone()),
        })
        .collect();
    let holds = ends.iter().position(|end| total <= *end);
    for (index, (end, (_, millionths))) in ends.iter().zip(&price.tiers).enumerate() {
        let quantity = if !price.is_volume {
            overlap(&low, end)
        } else if Some(index) == holds {
            beyond.clone()
        } else {
            zero.clone()
        };
        found.push(((index + 1).to_string(), quantity, *millionths));
        low = end.clone().max(low);
    }
    let scale = BigInt::from(10).pow(u32::from(spec.digits));
    found.retain(|(_, quantity, _)| !quantity.is_zero());
    let amount = |quantity: &BigRational, millionths: u64| {
        rounded(spec.rule, &(quantity * BigRational::new(&scale * millionths, BigInt::from(1_000_000))))
    };
    found.into_iter().map(|(tier, quantity, price)| (tier, quantity.clone(), amount(&quantity, price))).collect()
}

/// By what is nearest among the whole numbers around.
fn rounded(rule: &str, exact: &BigRational) -> BigInt {
    let (below, above) = (exact.floor().to_integer(), exact.ceil().to_integer());
    let distance = |to: &BigInt| (exact - BigRational::from_integer(to.clone())).abs();
    let (near_0, far_from_0) = if exact.is_negative() { (&above, &below) } else { (&below, &above) };
    let nearer = distance(near_0).cmp(&distance(far_from_0));
    let even = if (near_0 % 2_u8).is_zero() { near_0 } else { far_from_0 };
    let chosen = match (rule, nearer) {
        ("down", _) => near_0,
        ("up", _) => far_from_0,
        (_, std::cmp::Ordering::Less) => near_0,
        (_, std::cmp::Ordering::Greater) => far_from_0,
        ("half_up", _) => far_from_0,
        ("half_down", _) => near_0,
        ("half_even", _) => even,
        (other, _) => panic!("{other}"),
    };
    chosen.clone()
}

/// What a bill says, as the model would.
fn said(bill: &Bill, world: &World) -> Known {
    let number = |exact: &Exact| exact.to_string().parse::<BigRational>().expect("a rational");
    let mut said = Known::new();
    for line in &bill.lines {
        let part = world.specs.iter().rposition(|spec| spec.from <= line.span.from).expect("a card");
        let (class, what, quantity) = match &line.charge {
            Charge::Usage(usage) => {
                let tier = match usage.tier {
                    Tier::Free => "free".to_owned(),
                    Tier::Step(step) => step.to_string(),
                };
                (Some(usage.class), format!("{} {tier}", usage.dimension.name()), number(&usage.quantity))
            }
            Charge::Minimum { class, .. } => (*class, "minimum".to_owned(), BigRational::zero()),
            Charge::Rounding => panic!("no line of a bill"),
        };
        let before = said.insert((part, class, what), (quantity, BigInt::from(line.amount.units())));
        assert_eq!(before, None, "one line for one thing");
    }
    said
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 14, ..ProptestConfig::default() })]

    /// P7. Months of random life: writes, requests, class and tenant changes, restarts, steps of the clock, cards that change
    /// within the month, days of 23 and 25 hours, leap days. The bill is the model's, which counted every second, to the last
    /// unit; and lost, repeated and reordered readings change no line.
    #[test]
    fn the_bill_is_that_of_a_model_that_counts_every_second(seed in any::<u64>(), month in 0..MONTHS.len()) {
        let mut world = World::new(seed, month, true);
        let cards = world.cards();
        let mangled = world.mangled();
        prop_assert!(mangled.len() > 1000);
        for tenant in [1, 2] {
            let bill = rate(&world.readings, &cards, &world.period, &account(tenant)).expect("a bill");
            prop_assert_eq!(said(&bill, &world), known(&world, TenantId(tenant)));
            let again = rate(&mangled, &cards, &world.period, &account(tenant)).expect("a bill");
            prop_assert_eq!(&bill.lines, &again.lines);
            for line in &bill.lines {
                if let Charge::Usage(usage) = &line.charge {
                    let amounts: i128 = usage.resources.iter().map(|share| share.amount.units()).sum();
                    prop_assert_eq!(amounts, line.amount.units());
                    let quantity = usage.resources.iter().fold(Exact::zero(), |sum, share| sum + share.quantity.clone());
                    prop_assert_eq!(&quantity, &usage.quantity);
                }
            }
        }
    }
}

/// What the registers of volume 1 said: `written` as told, `reads` one for each 1000 of it.
fn reading(sequence: u64, at: u64, written: u128) -> Reading {
    let first = Reading::first(VolumeId(1), TenantId(1), ClassId(1), MeterTime(7_000_000 + at), at);
    let registers = first.registers.with(Dimension::Written, written).with(Dimension::Reads, written / 1000);
    let mark = if sequence == 0 { first.mark } else { Mark::Usual };
    Reading { sequence, mark, registers, ..first }
}

fn cards() -> RateCards {
    let mut cards = RateCards::default();
    cards.insert(RateCard::parse(CARD).expect("a card"), None).expect("it fits");
    cards
}

fn period(month: &str) -> Period {
    Period::of_month(month, "Europe/Berlin").expect("a month")
}

/// How far the registers of `dimension` went on, by a bill.
fn used(bill: &Bill, dimension: Dimension) -> Exact {
    let mut by_resource = BTreeMap::new();
    for line in &bill.lines {
        if let Charge::Usage(usage) = &line.charge
            && usage.dimension == dimension
        {
            for share in &usage.resources {
                by_resource.insert((share.resource, usage.class, line.span.from), share.used.clone());
            }
        }
    }
    by_resource.into_values().fold(Exact::zero(), |sum, used| sum + used)
}

proptest! {
    /// P7. Whatever lies on a border of months is on one side or the other: what months are billed for, one after the other,
    /// is what the registers went on by, exactly, wherever readings fall and whatever is done to the wall clock.
    #[test]
    fn months_share_what_was_used_without_rest(
        stretches in prop::collection::vec((0_u64..40 * 86_400_000, any::<u64>(), -90_000_i64..90_000), 1..12),
    ) {
        let months = ["2026-01", "2026-02", "2026-03", "2026-04", "2026-05", "2026-06", "2026-07", "2026-08", "2026-09",
            "2026-10", "2026-11", "2026-12", "2027-01", "2027-02", "2027-03", "2027-04", "2027-05", "2027-06"];
        let begin = milliseconds(period("2026-01").span().from) + 3_600_000;
        let mut readings = vec![reading(0, begin, 0)];
        let (mut at, mut written, mut step) = (begin, 0_u128, 0_i64);
        for (sequence, (dwell, went_on, set)) in (1..).zip(&stretches) {
            at += dwell;
            written += u128::from(*went_on);
            step += set;
            let wall_ms = at.saturating_add_signed(step);
            readings.push(Reading { wall_ms, ..reading(sequence, at, written) });
        }
        let mut sums = [Exact::zero(), Exact::zero()];
        for month in months {
            // A card for each month.
            let mut cards = cards();
            let from = period(month).span().from;
            let next = CARD.replace("2026-01-01T00:00:00Z", &from.to_string());
            if from > cards.iter().next().expect("a card").effective_from() {
                cards.insert(RateCard::parse(&next).expect("a card"), None).expect("it fits");
            } else {
                cards = RateCards::default();
                cards.insert(RateCard::parse(&next).expect("a card"), None).expect("it fits");
            }
            let bill = rate(&readings, &cards, &period(month), &account(1)).expect("a bill");
            for (sum, dimension) in sums.iter_mut().zip([Dimension::Written, Dimension::Reads]) {
                *sum = sum.clone() + used(&bill, dimension);
            }
        }
        prop_assert_eq!(&sums[0], &Exact::from(written));
        prop_assert_eq!(&sums[1], &Exact::from(written / 1000));
    }
}

/// P7. A month of 1 GiB is 1 GiB-month, also when it was read once before and once after, and its class changed in between; what
/// the first class had to pay ends at the second in which the change was.
#[test]
fn a_class_change_splits_the_bill_to_the_second() {
    let period = period("2026-10");
    let (begin, end) = (milliseconds(period.span().from), milliseconds(period.span().to));
    let change = begin + 12_345_000;
    let to_silver = |reading: Reading| Reading { class: ClassId(0), changes: 1, ..reading };
    let register = |at: u64| GIB * u128::from(at - begin);
    let provisioned = |reading: Reading| {
        let bytes = reading.registers.value(Dimension::Written);
        Reading { registers: reading.registers.with(Dimension::Provisioned, bytes), ..reading }
    };
    let readings = [
        provisioned(reading(0, begin, 0)),
        provisioned(to_silver(reading(1, change, register(change)))),
        provisioned(to_silver(reading(2, end, register(end)))),
    ];
    let bill = rate(&readings, &cards(), &period, &account(1)).expect("a bill");
    assert_eq!(used(&bill, Dimension::Written), Exact::from(GIB * 12_345_000), "gold has a price for it, silver none");
    assert_eq!(used(&bill, Dimension::Provisioned), Exact::from(GIB * u128::from(end - change)));
    assert!(bill.notes.is_empty(), "{:?}", bill.notes);
}

/// P7. Readings that contradict one another are refused, with the reading and what is wrong.
#[test]
fn contradictions_are_named() {
    let begin = milliseconds(period("2026-11").span().from);
    let first = reading(0, begin, 1000);
    let next = reading(1, begin + 300_000, 2000);
    let of_epoch = |epoch, reading: Reading| Reading { epoch: Epoch(epoch), mark: Mark::Usual, ..reading };
    let cases = [
        (reading(1, begin + 300_000, 2001), Wrong::Conflict),
        (reading(2, begin + 299_999, 2000), Wrong::TimeBack),
        (reading(2, begin + 600_000, 1999), Wrong::RegisterBack { dimension: Dimension::Written }),
        (Reading { estimated_ms: 5, ..reading(0, begin, 1000) }, Wrong::Conflict),
        (of_epoch(2, reading(0, begin + 299_999, 0)), Wrong::Overlap { other: Epoch(1) }),
    ];
    for (third, wrong) in cases {
        let readings = [third.clone(), next.clone(), first.clone(), next.clone()];
        let error = rate(&readings, &cards(), &period("2026-11"), &account(1)).expect_err("a contradiction");
        let expected = ReadingError { resource: VolumeId(1), epoch: third.epoch, sequence: third.sequence, wrong };
        assert_eq!(error, RatingError::Reading(expected));
    }
    let more = [Reading { changes: 1, ..first.clone() }, next];
    let error = rate(&more, &cards(), &period("2026-11"), &account(1)).expect_err("fewer changes");
    assert!(matches!(error, RatingError::Reading(ReadingError { sequence: 1, wrong: Wrong::Changes, .. })), "{error}");
    let huge = [
        first.clone(),
        Reading { class: ClassId(1), ..reading(1, begin + 1, u128::MAX) },
        of_epoch(2, reading(0, begin + 1, 0)),
        of_epoch(2, reading(1, begin + 2, u128::MAX)),
    ];
    let error = rate(&huge, &cards(), &period("2026-11"), &account(1)).expect_err("too much");
    assert!(error.to_string().contains("too much for 128 bits"), "{error}");
}

/// P7. Where a tier ends is part of it, whether a price is for what lies in the tier or for all.
#[test]
fn the_end_of_a_tier_is_part_of_it() {
    let november = period("2026-11");
    let begin = milliseconds(november.span().from);
    let month = u128::from(november.milliseconds());
    let tiers = |dimension, class, register: u128| -> Vec<(Tier, String)> {
        let first = Reading { class: ClassId(class), ..reading(0, begin, 0) };
        let registers = Registers::default().with(dimension, register);
        let next = Reading { class: ClassId(class), registers, ..reading(1, begin + 300_000, 0) };
        let bill = rate(&[first, next], &cards(), &november, &account(1)).expect("a bill");
        let usages = bill.lines.iter().filter_map(|line| match &line.charge {
            Charge::Usage(usage) => Some((usage.tier.clone(), usage.price.to_string())),
            Charge::Minimum { .. } | Charge::Rounding => None,
        });
        usages.collect()
    };
    let tier = |step: u32, price: &str| (Tier::Step(step), price.to_owned());
    let free = (Tier::Free, "0".to_owned());
    // All of it, when it ends at 1000 GB-hours, and one byte-millisecond further.
    let hours = 1000 * 1_000_000_000 * 3_600_000;
    assert_eq!(tiers(Dimension::Provisioned, 0, hours), [tier(1, "0.00005")]);
    assert_eq!(tiers(Dimension::Provisioned, 0, hours + 1), [tier(2, "0.00004")]);
    // 10 GiB-months are free, 100 more are in the first tier.
    assert_eq!(tiers(Dimension::Written, 1, GIB * month * 10), std::slice::from_ref(&free));
    assert_eq!(tiers(Dimension::Written, 1, GIB * month * 110), [free.clone(), tier(1, "0.12")]);
    assert_eq!(tiers(Dimension::Written, 1, GIB * month * 110 + 1), [free, tier(1, "0.12"), tier(2, "0.0999")]);
}

/// P7. What may be missing is told, and nothing is made up for it.
#[test]
fn gaps_are_told_and_not_billed() {
    let span = period("2026-11").span();
    let (begin, end) = (milliseconds(span.from), milliseconds(span.to));
    let of_epoch = |reading: Reading| Reading { epoch: Epoch(2), mark: Mark::Usual, ..reading };
    let kinds = |readings: &[Reading]| -> Vec<NoteKind> {
        let bill = rate(readings, &cards(), &period("2026-11"), &account(1)).expect("a bill");
        bill.notes.into_iter().map(|note| note.kind).collect()
    };
    let marked = |mark, reading: Reading| Reading { mark, ..reading };
    let (early, late) = (reading(0, begin - 1, 0), reading(9, end, 90_000));
    let rebooted = Reading { estimated_ms: 60_000, ..late.clone() };
    assert_eq!(kinds(&[early.clone(), rebooted]), [NoteKind::Estimated { milliseconds: 60_000 }]);
    assert_eq!(kinds(&[early.clone(), late.clone()]), []);
    let gap =
        [early.clone(), reading(1, begin + 5, 10), of_epoch(reading(0, begin + 8, 50)), of_epoch(reading(1, end, 60))];
    assert_eq!(kinds(&gap), [NoteKind::Gap]);
    let bill = rate(&gap, &cards(), &period("2026-11"), &account(1)).expect("a bill");
    assert!(used(&bill, Dimension::Written) < Exact::from(20_u64));
    let no_gap =
        [early.clone(), reading(1, begin + 5, 10), of_epoch(reading(0, begin + 5, 0)), of_epoch(reading(1, end, 60))];
    assert_eq!(kinds(&no_gap), []);
    assert_eq!(kinds(&[reading(3, begin + 5, 0), late.clone()]), [NoteKind::BeginsLate]);
    assert_eq!(kinds(&[reading(0, begin + 5, 0), late.clone()]), [], "it was created then");
    assert_eq!(kinds(&[early.clone(), reading(1, end - 5, 10)]), [NoteKind::EndsEarly]);
    assert_eq!(
        kinds(&[early.clone(), marked(Mark::Ends, reading(1, end - 5, 10))]),
        [NoteKind::Ends],
        "it was deleted"
    );
    let silver = Reading { class: ClassId(0), changes: 1, ..reading(5, begin + 100, 1000) };
    let after = Reading { class: ClassId(0), changes: 1, ..late.clone() };
    assert_eq!(kinds(&[early.clone(), silver.clone(), after.clone()]), [NoteKind::UnseenChange]);
    let before = reading(4, begin + 90, 900);
    assert_eq!(kinds(&[early.clone(), before.clone(), silver.clone(), after.clone()]), []);
    let uncounted = [silver, after].map(|reading| Reading { changes: 0, ..reading });
    assert_eq!(kinds(&[[early.clone(), before].as_slice(), &uncounted].concat()), [NoteKind::UnseenChange]);
    let set = Reading { wall_ms: begin + 3_600_000, ..reading(1, begin + 5, 10) };
    let clock = kinds(&[early, set, Reading { wall_ms: end, ..reading(2, end - 3_600_000, 20) }]);
    assert!(matches!(clock.as_slice(), [NoteKind::ClockStep { .. }]), "{clock:?}");
}

/// P7. Where a stretch lies on both sides of a border, it is split by time, exactly, and the line says so.
#[test]
fn a_split_is_on_the_line() {
    let span = period("2026-11").span();
    let begin = milliseconds(span.from);
    let readings = [reading(0, begin - 100_000, 0), reading(1, begin + 200_000, 1_000_000_000_000_001)];
    let bill = rate(&readings, &cards(), &period("2026-11"), &account(1)).expect("a bill");
    // A third is before the border, cut at the last whole unit.
    assert_eq!(used(&bill, Dimension::Written), Exact::from(666_666_666_666_668_u64));
    let line = bill.lines.first().expect("a line");
    assert_eq!(line.notes.len(), 1);
    assert_eq!(line.notes[0].kind, NoteKind::Split { at: span.from });
    assert!(line.notes[0].to_string().contains("was split at 2026-10-31T23:00:00Z"), "{}", line.notes[0]);
}

/// P7. What has no price is refused, never free: no card, or a card without the class.
#[test]
fn what_has_no_price_is_refused() {
    let begin = milliseconds(period("2026-11").span().from);
    let readings = [reading(0, begin, 0), reading(1, begin + 300_000, 5000)];
    let november = period("2026-11");
    let error = rate(&readings, &RateCards::default(), &november, &account(1)).expect_err("no card");
    assert_eq!(error, RatingError::NoCards("2026-11".to_owned()));
    let mut late = RateCards::default();
    late.insert(RateCard::parse(&CARD.replace("2026-01-01", "2026-11-20")).expect("a card"), None).expect("it fits");
    let error = rate(&readings, &late, &november, &account(1)).expect_err("no card yet");
    assert!(matches!(error, RatingError::NoCard { class: ClassId(1), .. }), "{error}");
    let bronze = readings.clone().map(|reading| Reading { class: ClassId(9), ..reading });
    let error = rate(&bronze, &cards(), &november, &account(1)).expect_err("no such class");
    assert!(matches!(error, RatingError::NoClass { class: ClassId(9), .. }), "{error}");
    assert!(rate(&bronze, &cards(), &november, &account(2)).is_ok(), "another tenant's are not its own");
}

/// P7. The forecast goes on as the last day did, for what is still there.
#[test]
fn the_forecast_goes_on_as_the_last_day_did() {
    let november = period("2026-11");
    let begin = milliseconds(november.span().from);
    let day = 86_400_000;
    // Ten days at 1 GiB, one at 3.
    let mut readings: Vec<Reading> = (0..=10).map(|n| reading(n, begin + n * day, GIB * u128::from(n * day))).collect();
    readings.push(reading(11, begin + 11 * day, GIB * u128::from(13 * day)));
    let gone = |reading: Reading| Reading { resource: VolumeId(2), ..reading };
    readings.extend([gone(reading(0, begin, 0)), gone(reading(1, begin + day, GIB * u128::from(day)))]);
    let now = moment(begin + 11 * day);
    let bill = rate(&forecast(&readings, &november, now), &cards(), &november, &account(1)).expect("a bill");
    assert_eq!(used(&bill, Dimension::Written), Exact::from(GIB * u128::from((13 + 19 * 3 + 1) * day)));
    let single = [reading(0, begin, 5)];
    assert_eq!(forecast(&single, &november, now), single, "one reading tells no pace");
}

/// P7. A script that knows none of this code finds the same lines and the same sum, from the readings and the cards alone.
#[test]
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "another program is run, on files")]
fn an_independent_script_finds_the_same() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/metering/recompute.py");
    // Both changes of the clocks, by an hour and by half of one, and a leap day.
    for (seed, month) in [(1, 0), (2, 1), (3, 2), (4, 4)] {
        let mut world = World::new(0xA11C0_u64 + seed, month, false);
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let cards = world.cards();
        let readings = world.mangled();
        let write = |name: &str, readings: &[Reading]| {
            let lines = readings.iter().map(|reading| serde_json::to_string(reading).expect("JSON") + "\n");
            std::fs::write(path(name), lines.collect::<String>()).expect("written");
        };
        write("readings.jsonl", &readings);
        write("one_more.jsonl", &one_more(&readings, &world.period));
        let documents: Vec<String> =
            cards.iter().map(|card| String::from_utf8(card.canonical()).expect("text")).collect();
        std::fs::write(path("cards.json"), format!("[{}]", documents.join(","))).expect("written");
        let bill = rate(&readings, &cards, &world.period, &account(1)).expect("a bill");
        let issuer = crate::Issuer { name: "host".to_owned(), region: None };
        let at = world.period.span().to;
        let invoice = crate::Invoice::issue(bill, Vec::new(), issuer, "R-1", at).expect("an invoice");
        std::fs::write(path("invoice.json"), invoice.render(crate::Format::Json).expect("JSON")).expect("written");
        for (file, is_same) in [("readings.jsonl", true), ("one_more.jsonl", false)] {
            let output = std::process::Command::new("python3")
                .arg(script)
                .args(["--tenant", "1", "--month", world.period.month(), "--zone", world.period.zone()])
                .args(["--readings".into(), path(file), "--cards".into(), path("cards.json")])
                .args(["--invoice".into(), path("invoice.json")])
                .output();
            let output = match output {
                Ok(output) => output,
                Err(error) if std::env::var_os("CI").is_none() => {
                    println!("SKIPPED: an_independent_script_finds_the_same: python3: {error}");
                    return;
                }
                Err(error) => panic!("python3: {error}"),
            };
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), is_same, "{} {file}: {said}", world.period.month());
            println!("{} {file}: {}", world.period.month(), said.trim().chars().take(200).collect::<String>());
        }
    }
}

/// `readings`, but from one moment on, in the middle of the month, one of tenant 1's volumes had used one unit more of each register.
fn one_more(readings: &[Reading], period: &Period) -> Vec<Reading> {
    let span = period.span();
    let middle = u64::midpoint(milliseconds(span.from), milliseconds(span.to));
    let is_behind = |reading: &Reading, last: &Reading| {
        (reading.resource, reading.epoch) == (last.resource, last.epoch) && reading.sequence > last.sequence
    };
    let is_own =
        |reading: &&Reading| reading.tenant == TenantId(1) && reading.mark != Mark::Ends && reading.wall_ms < middle;
    let mut own: Vec<&Reading> = readings.iter().filter(is_own).collect();
    own.sort_by_key(|reading| std::cmp::Reverse(reading.wall_ms));
    let goes_on = |last: &&Reading| readings.iter().any(|reading| is_behind(reading, last));
    let last = own.into_iter().find(goes_on).expect("tenant 1 had a volume").clone();
    let is_later = |reading: &Reading| is_behind(reading, &last);
    let more = |registers: Registers| {
        let add = |registers: Registers, dimension| registers.with(dimension, registers.value(dimension) + 1);
        Dimension::ALL.into_iter().fold(registers, add)
    };
    let change = |reading: &Reading| {
        let registers = if is_later(reading) { more(reading.registers) } else { reading.registers };
        Reading { registers, ..reading.clone() }
    };
    readings.iter().map(change).collect()
}
