//! Months of random life, second by second: what was used, known for sure, and the readings that were taken of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use units::{ClassId, Epoch, MeterTime, TenantId, VolumeId};

use super::period::{milliseconds, moment};
use super::{Period, RateCard, RateCards};
use crate::reading::{Dimension, Mark, Reading, Registers};

/// What a month may be: with a change of the clocks, with a leap day, and without.
pub(super) const MONTHS: [(&str, &str); 7] = [
    ("2026-03", "Europe/Berlin"),
    ("2026-10", "Europe/Berlin"),
    ("2028-02", "UTC"),
    ("2026-11", "America/New_York"),
    ("2026-04", "Australia/Lord_Howe"),
    ("2027-02", "Asia/Kathmandu"),
    ("2026-12", "Pacific/Auckland"),
];
const READING_SECONDS: u64 = 300;
/// So near to a border nothing changes and no reading is lost, in a calm world: what a split by time says is the truth then.
const CALM_SECONDS: u64 = 1_000;
const VOLUMES: u64 = 3;
const CLASSES: u64 = 3;

/// Numbers from a seed (splitmix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A price as the model knows it: whole units.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PriceSpec {
    pub(super) dimension: Dimension,
    pub(super) unit: &'static str,
    pub(super) free: u64,
    pub(super) is_volume: bool,
    /// Where each ends, and its price in millionths.
    pub(super) tiers: Vec<(Option<u64>, u64)>,
}

pub(super) struct CardSpec {
    pub(super) from: Timestamp,
    pub(super) rule: &'static str,
    pub(super) digits: u8,
    pub(super) minimum: u64,
    pub(super) classes: BTreeMap<ClassId, (u64, Vec<PriceSpec>)>,
}

struct Volume {
    id: VolumeId,
    tenant: TenantId,
    class: ClassId,
    levels: [u64; 5],
    epoch: Epoch,
    sequence: u64,
    /// Of its next reading.
    mark: Mark,
    changes: u64,
    registers: Registers,
    phase: u64,
    /// When its last reading was, by the wall clock and by the meter's.
    label: (u64, u64),
    /// What it used since its tenant, its class or the part of the month was another: put into the truth when they change.
    counted: (Whose, [u128; Dimension::ALL.len()]),
}

/// The part of the month, if any, the tenant and the class.
type Whose = (Option<usize>, TenantId, ClassId);

/// By tenant, part of the month, class and dimension: how far registers went on.
pub(super) type Truth = BTreeMap<(TenantId, usize, ClassId, Dimension), u128>;

pub(super) struct World {
    pub(super) period: Period,
    pub(super) specs: Vec<CardSpec>,
    pub(super) readings: Vec<Reading>,
    pub(super) truth: Truth,
    dice: Dice,
    is_calm: bool,
    /// Borders of parts, on the wall clock, in seconds.
    borders: Vec<u64>,
}

impl World {
    /// One of [`MONTHS`], with the life that `seed` tells.
    pub(super) fn new(seed: u64, month: usize, is_calm: bool) -> Self {
        let mut dice = Dice(seed);
        let (month, zone) = MONTHS[month];
        let period = Period::of_month(month, zone).expect("a month");
        let (begin, end) = (milliseconds(period.span().from) / 1000, milliseconds(period.span().to) / 1000);
        let mut begins = vec![begin - 86_400 * (1 + dice.below(100))];
        begins.extend((0..dice.below(3)).map(|_| begin + 10_000 + dice.below(end - begin - 20_000)));
        begins.sort_unstable();
        begins.dedup();
        let mut specs: Vec<CardSpec> = Vec::new();
        for from in &begins {
            let next = card(&mut dice, moment(from * 1000), specs.last());
            specs.push(next);
        }
        let borders = [begin].into_iter().chain(begins.into_iter().skip(1)).chain([end]).collect();
        let mut world = Self { period, specs, readings: Vec::new(), truth: Truth::new(), dice, is_calm, borders };
        world.live(begin, end);
        world
    }

    pub(super) fn cards(&self) -> RateCards {
        let mut cards = RateCards::default();
        for spec in &self.specs {
            cards.insert(RateCard::parse(&spec.json()).expect("a card"), None).expect("it fits");
        }
        cards
    }

    /// The readings as they may come: some lost, some twice, in any order.
    pub(super) fn mangled(&mut self) -> Vec<Reading> {
        let mut mangled = Vec::new();
        for (index, reading) in self.readings.iter().enumerate() {
            let neighbours = [index.wrapping_sub(1), index + 1].map(|at| self.readings.get(at));
            let is_plain = neighbours.into_iter().all(|other| {
                other.is_some_and(|other| {
                    let who = |reading: &Reading| (reading.resource, reading.epoch, reading.tenant, reading.class);
                    who(other) == who(reading)
                })
            });
            let near = |border: &u64| reading.wall_ms.abs_diff(border * 1000) < (CALM_SECONDS + 300) * 1000;
            if is_plain && !self.borders.iter().any(near) && self.dice.one_in(3) {
                continue;
            }
            mangled.push(reading.clone());
            if self.dice.one_in(5) {
                mangled.push(reading.clone());
            }
        }
        for index in (1..mangled.len()).rev() {
            let other = self.dice.below(u64::try_from(index + 1).expect("64 bits"));
            mangled.swap(index, usize::try_from(other).expect("64 bits"));
        }
        mangled
    }

    fn live(&mut self, begin: u64, end: u64) {
        for id in 1..=VOLUMES {
            let mut volume = self.volume(VolumeId(id));
            // The meter's clock began some day; the wall clock is set now and then.
            let origin = 1 + self.dice.below(1 << 40);
            let start = begin - self.dice.below(2_000);
            let mut step = 0_i64;
            self.read(&mut volume, origin, start);
            for elapsed in 0..end + 2_000 - start {
                let wall = (start + elapsed).checked_add_signed(step).expect("after 1970");
                let is_near = self.borders.iter().any(|border| wall.abs_diff(*border) < CALM_SECONDS);
                if elapsed % READING_SECONDS == volume.phase && elapsed > 0 {
                    self.read(&mut volume, origin + elapsed, wall);
                }
                if !(is_near && self.is_calm) {
                    self.change(&mut volume, origin + elapsed, wall);
                    if self.dice.one_in(500_000) {
                        step += i64::try_from(self.dice.below(121)).expect("small") - 60;
                    }
                }
                self.dwell(&mut volume, origin + elapsed);
            }
            self.settle(&mut volume);
            let elapsed = end + 2_000 - start;
            self.read(&mut volume, origin + elapsed, (start + elapsed).checked_add_signed(step).expect("after 1970"));
        }
    }

    fn volume(&mut self, id: VolumeId) -> Volume {
        Volume {
            id,
            // Tenant 1 has one at least.
            tenant: TenantId(if id.0 == 1 { 1 } else { 1 + self.dice.below(2) }),
            class: ClassId(self.dice.below(CLASSES)),
            levels: [0; 5].map(|_: u64| self.dice.below(1 << 44)),
            epoch: Epoch(self.dice.below(5)),
            sequence: 0,
            mark: Mark::Begins,
            changes: 0,
            registers: Registers::default(),
            phase: self.dice.below(READING_SECONDS),
            label: (0, 0),
            counted: ((None, TenantId(0), ClassId(0)), [0; Dimension::ALL.len()]),
        }
    }

    fn read(&mut self, volume: &mut Volume, at: u64, wall: u64) {
        volume.label = (wall, at);
        self.readings.push(Reading {
            resource: volume.id,
            tenant: volume.tenant,
            class: volume.class,
            epoch: volume.epoch,
            sequence: volume.sequence,
            mark: std::mem::replace(&mut volume.mark, Mark::Usual),
            changes: volume.changes,
            estimated_ms: 0,
            at: MeterTime(at * 1000),
            wall_ms: wall * 1000,
            registers: volume.registers,
        });
        volume.sequence += 1;
    }

    /// What may happen at a moment, before the next second passes.
    fn change(&mut self, volume: &mut Volume, at: u64, wall: u64) {
        if self.dice.one_in(20_000) {
            let which = usize::try_from(self.dice.below(5)).expect("small");
            let bits = self.dice.below(46);
            volume.levels[which] = self.dice.below(1 << bits);
        }
        if self.dice.one_in(2_000) {
            self.requests(volume, at);
        }
        if self.dice.one_in(400_000) {
            let class = ClassId(self.dice.below(CLASSES));
            volume.changes += u64::from(class != volume.class);
            volume.class = class;
            self.read(volume, at, wall);
        }
        if self.dice.one_in(2_000_000) {
            volume.mark = Mark::Ends;
            self.read(volume, at, wall);
            volume.tenant = TenantId(3 - volume.tenant.0);
            volume.changes += 1;
            volume.mark = Mark::Begins;
            self.read(volume, at, wall);
        }
        if self.dice.one_in(1_000_000) {
            self.read(volume, at, wall);
            volume.epoch = Epoch(volume.epoch.0 + 1 + self.dice.below(3));
            volume.sequence = 0;
            volume.registers = Registers::default().with(Dimension::Reads, u128::from(self.dice.below(9)));
            self.read(volume, at, wall);
        }
    }

    fn requests(&mut self, volume: &mut Volume, at: u64) {
        let io = [Dimension::Reads, Dimension::Writes, Dimension::ReadBytes, Dimension::WriteBytes];
        for (dimension, most) in io.into_iter().zip([1_000_000, 1_000_000, 1 << 40, 1 << 40]) {
            let count = u128::from(self.dice.below(most));
            self.count(volume, dimension, count, at);
        }
    }

    /// One second more on each byte.
    fn dwell(&mut self, volume: &mut Volume, at: u64) {
        for (dimension, level) in Dimension::ALL.into_iter().zip(volume.levels) {
            self.count(volume, dimension, u128::from(level) * 1000, at);
        }
    }

    fn count(&mut self, volume: &mut Volume, dimension: Dimension, count: u128, at: u64) {
        volume.registers = volume.registers.with(dimension, volume.registers.value(dimension) + count);
        let label = volume.label.0 + (at - volume.label.1);
        let part = self.borders.iter().filter(|border| **border <= label).count();
        let part = (1..self.borders.len()).contains(&part).then(|| part - 1);
        let whose = (part, volume.tenant, volume.class);
        if volume.counted.0 != whose {
            self.settle(volume);
            volume.counted.0 = whose;
        }
        volume.counted.1[dimension as usize] += count;
    }

    fn settle(&mut self, volume: &mut Volume) {
        let ((part, tenant, class), counted) = volume.counted;
        for (dimension, count) in Dimension::ALL.into_iter().zip(counted) {
            if let Some(part) = part.filter(|_| count > 0) {
                *self.truth.entry((tenant, part, class, dimension)).or_default() += count;
            }
        }
        volume.counted.1 = [0; Dimension::ALL.len()];
    }
}

/// One that says some of what the one before says.
fn card(dice: &mut Dice, from: Timestamp, before: Option<&CardSpec>) -> CardSpec {
    let rules = ["half_even", "half_up", "half_down", "up", "down"];
    let mut classes = BTreeMap::new();
    for class in 0..CLASSES {
        let mut prices = Vec::new();
        for dimension in Dimension::ALL {
            let old = before.and_then(|before| before.classes.get(&ClassId(class)));
            let old = old.and_then(|(_, prices)| prices.iter().find(|price| price.dimension == dimension));
            match old.filter(|_| dice.one_in(2)) {
                Some(price) => prices.push(price.clone()),
                None if dice.one_in(3) => {}
                None => prices.push(price(dice, dimension)),
            }
        }
        classes.insert(ClassId(class), (dice.below(2) * dice.below(100_000), prices));
    }
    let rounding = (rules[usize::try_from(dice.below(5)).expect("small")], u8::try_from(dice.below(5)).expect("small"));
    let (rule, digits) = before.filter(|_| !dice.one_in(4)).map_or(rounding, |before| (before.rule, before.digits));
    CardSpec { from, rule, digits, minimum: dice.below(2) * dice.below(1_000_000), classes }
}

fn price(dice: &mut Dice, dimension: Dimension) -> PriceSpec {
    let units: &[&str] = match dimension.unit() {
        crate::Unit::ByteMilliseconds => &["gib_month", "gb_month", "tib_month", "tb_month", "gib_hour", "gb_hour"],
        crate::Unit::Requests => &["thousand_requests", "million_requests"],
        crate::Unit::Bytes => &["gib", "gb", "tib", "tb"],
    };
    let count = u64::try_from(units.len()).expect("small");
    let unit = units[usize::try_from(dice.below(count)).expect("small")];
    let mut end = 0;
    let mut tiers = Vec::new();
    for _ in 0..dice.below(3) {
        end += 1 + dice.below(20_000);
        tiers.push((Some(end), dice.below(2_000_000)));
    }
    tiers.push((None, dice.below(2_000_000)));
    PriceSpec { dimension, unit, free: dice.below(2) * dice.below(5_000), is_volume: dice.one_in(2), tiers }
}

impl CardSpec {
    pub(super) fn json(&self) -> String {
        let millionths = |value: u64| format!("{}.{:06}", value / 1_000_000, value % 1_000_000);
        let classes = self.classes.iter().map(|(class, (minimum, prices))| {
            let prices: Vec<serde_json::Value> = prices
                .iter()
                .map(|price| {
                    let tiers: Vec<serde_json::Value> = price
                        .tiers
                        .iter()
                        .map(|(end, price)| match end {
                            Some(end) => serde_json::json!({"up_to": end.to_string(), "price": millionths(*price)}),
                            None => serde_json::json!({"price": millionths(*price)}),
                        })
                        .collect();
                    serde_json::json!({
                        "dimension": price.dimension.name(), "unit": price.unit, "free": price.free.to_string(),
                        "tiering": if price.is_volume { "volume" } else { "graduated" }, "tiers": tiers,
                    })
                })
                .collect();
            serde_json::json!({
                "class": class.0, "name": format!("class {class}"), "minimum": minimum.to_string(), "prices": prices,
            })
        });
        let classes: Vec<serde_json::Value> = classes.collect();
        serde_json::json!({
            "name": "a card", "currency": "EUR", "effective_from": self.from.to_string(),
            "rounding": {"rule": self.rule, "digits": self.digits}, "minimum": self.minimum.to_string(), "classes": classes,
        })
        .to_string()
    }
}
