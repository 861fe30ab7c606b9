//! What a month costs, by a model that rates what it knows of each volume: with whole numbers, and without the code that rates.

use metering::{Charge, Dimension, Exact, Invoice, Period, RateCard, RateCards, Tier};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use units::{ClassId, VolumeId};

use crate::random::Random;

/// Classes that the card has.
pub const CLASSES: u64 = 3;

/// Decimals of a line: so many that a block for an hour is seen.
const DIGITS: u32 = 12;

/// What is metered by bytes and time.
pub const DIMENSIONS: [Dimension; 5] =
    [Dimension::Provisioned, Dimension::Written, Dimension::Snapshots, Dimension::History, Dimension::Physical];

/// A price: whole GiB-months, and millionths.
#[derive(Debug, Clone, Copy)]
struct Price {
    free: u64,
    first_tier: u64,
    prices: [u64; 2],
}

/// A random rate card.
#[derive(Debug, Clone)]
pub struct Card {
    prices: BTreeMap<(ClassId, Dimension), Price>,
}

/// Of a class, a dimension and a volume: how far the register went on.
pub type Use = BTreeMap<(ClassId, Dimension, VolumeId), u128>;

/// What a bill says, or what it ought to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    used: BTreeMap<(ClassId, Dimension, VolumeId), String>,
    /// By tier; in the last decimal of a line.
    amounts: BTreeMap<(ClassId, Dimension, u32), i128>,
    total: String,
}

impl Card {
    /// Draws one.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        let mut prices = BTreeMap::new();
        for class in (0..CLASSES).map(ClassId) {
            for dimension in DIMENSIONS {
                let free = random.below(2) * random.below(3);
                let prices_of = [random.within(1, 2_000_000), random.within(1, 2_000_000)];
                let price = Price { free, first_tier: random.within(1, 2000), prices: prices_of };
                prices.insert((class, dimension), price);
            }
        }
        Self { prices }
    }

    /// The same for those who rate.
    #[must_use]
    pub fn real(&self) -> RateCards {
        let mut classes = String::new();
        for class in (0..CLASSES).map(ClassId) {
            let comma = if class.0 == 0 { "" } else { "," };
            write!(classes, r#"{comma}{{"class":{class},"name":"class {class}","prices":["#).unwrap();
            for (place, dimension) in DIMENSIONS.into_iter().enumerate() {
                let Price { free, first_tier, prices } = self.prices[&(class, dimension)];
                let [first, second] = prices.map(|price| format!("{}.{:06}", price / 1_000_000, price % 1_000_000));
                let comma = if place == 0 { "" } else { "," };
                let name = dimension.name();
                write!(
                    classes,
                    r#"{comma}{{"dimension":"{name}","unit":"gib_month","free":"{free}","tiers":[{{"up_to":"{first_tier}","price":"{first}"}},{{"price":"{second}"}}]}}"#
                )
                .unwrap();
            }
            classes.push_str("]}");
        }
        let text = format!(
            r#"{{"name":"a card","currency":"EUR","effective_from":"2020-01-01T00:00:00Z","rounding":{{"rule":"half_even","digits":{DIGITS}}},"classes":[{classes}]}}"#
        );
        let mut cards = RateCards::default();
        cards.insert(RateCard::parse(&text).unwrap(), None).unwrap();
        cards
    }

    /// What is to be paid for a month.
    #[must_use]
    pub fn known(&self, used: &Use, period: &Period) -> Said {
        let mut said = Said::default();
        let mut sums: BTreeMap<(ClassId, Dimension), u128> = BTreeMap::new();
        for ((class, dimension, volume), used) in used.iter().filter(|(_, used)| **used > 0) {
            said.used.insert((*class, *dimension, *volume), Exact::from(*used).to_string());
            *sums.entry((*class, *dimension)).or_default() += used;
        }
        let unit = u128::from(period.milliseconds()) << 30;
        for ((class, dimension), sum) in sums {
            let Price { free, first_tier, prices } = self.prices[&(class, dimension)];
            let beyond = sum.saturating_sub(u128::from(free) * unit);
            let first = beyond.min(u128::from(first_tier) * unit);
            for (step, (part, price)) in (1..).zip([first, beyond - first].into_iter().zip(prices)) {
                let amount = half_even(part * u128::from(price) * 10_u128.pow(DIGITS - 6), unit);
                if amount > 0 {
                    said.amounts.insert((class, dimension, step), i128::try_from(amount).unwrap());
                }
            }
        }
        let sum = u128::try_from(said.amounts.values().sum::<i128>()).unwrap();
        let cents = half_even(sum, 10_u128.pow(DIGITS - 2));
        said.total = format!("{}.{:02}", cents / 100, cents % 100);
        said
    }
}

impl Said {
    /// What an invoice says.
    #[must_use]
    pub fn of(invoice: &Invoice) -> Self {
        let mut said = Self { total: invoice.total().to_string(), ..Self::default() };
        for line in invoice.lines() {
            let Charge::Usage(usage) = &line.charge else { continue };
            for share in usage.resources.iter().filter(|share| !share.used.is_zero()) {
                said.used.insert((usage.class, usage.dimension, share.resource), share.used.to_string());
            }
            let step = match usage.tier {
                Tier::Free => 0,
                Tier::Step(step) => step,
            };
            if line.amount.units() != 0 {
                said.amounts.insert((usage.class, usage.dimension, step), line.amount.units());
            }
        }
        said
    }

    /// Whether anything is to be paid.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.amounts.is_empty()
    }
}

/// The nearest whole number; of two the even one.
const fn half_even(value: u128, by: u128) -> u128 {
    let (whole, rest) = (value / by, value % by);
    let is_up = rest * 2 > by || rest * 2 == by && whole % 2 == 1;
    whole + is_up as u128
}
