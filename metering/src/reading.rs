//! Readings: what a resource's registers said at a moment.
//!
//! A register only grows, so use between two moments is the difference of two readings, and a reading that is lost, comes twice
//! or late changes nothing. A reading that names another class than the one before ends what the former had to pay, and begins
//! what the next one has to. Where the tenant changes there are two of one moment and with the same registers: one ends it for
//! the tenant before, and the next one begins it for the other, so that each tenant's own readings say all of it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use units::{ClassId, Epoch, MeterTime, TenantId, VolumeId};

/// What a register counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Bytes of the volume's size, by time.
    Provisioned,
    /// Bytes that hold data in the volume as it is, by time.
    Written,
    /// Bytes that its snapshots hold beyond that, by time.
    Snapshots,
    /// Bytes that its history holds beyond both, by time.
    History,
    /// Bytes that it takes of the pool, garbage and headers with it, by time.
    Physical,
    /// Requests that read.
    Reads,
    /// Requests that write, zero or trim.
    Writes,
    /// Bytes that were read.
    ReadBytes,
    /// Bytes that were written.
    WriteBytes,
}

/// What one of a register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// One byte for one millisecond.
    ByteMilliseconds,
    /// One request.
    Requests,
    /// One byte.
    Bytes,
}

impl Dimension {
    /// All of them, in the order of their registers.
    pub const ALL: [Self; 9] = [
        Self::Provisioned,
        Self::Written,
        Self::Snapshots,
        Self::History,
        Self::Physical,
        Self::Reads,
        Self::Writes,
        Self::ReadBytes,
        Self::WriteBytes,
    ];

    /// What one of its register is.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::Provisioned | Self::Written | Self::Snapshots | Self::History | Self::Physical => {
                Unit::ByteMilliseconds
            }
            Self::Reads | Self::Writes => Unit::Requests,
            Self::ReadBytes | Self::WriteBytes => Unit::Bytes,
        }
    }

    /// Its name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provisioned => "provisioned",
            Self::Written => "written",
            Self::Snapshots => "snapshots",
            Self::History => "history",
            Self::Physical => "physical",
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::ReadBytes => "read_bytes",
            Self::WriteBytes => "write_bytes",
        }
    }
}

/// The registers of a resource, one of each dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Registers([u128; Dimension::ALL.len()]);

impl Registers {
    /// What the register of `dimension` says.
    #[must_use]
    pub fn value(&self, dimension: Dimension) -> u128 {
        self.0.get(dimension as usize).copied().unwrap_or(0)
    }

    /// The same registers, but for the one of `dimension`.
    #[must_use]
    pub fn with(mut self, dimension: Dimension, value: u128) -> Self {
        if let Some(register) = self.0.get_mut(dimension as usize) {
            *register = value;
        }
        self
    }
}

/// As a map of decimal texts: a number of JSON is a float to many readers.
impl Serialize for Registers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Dimension::ALL.map(|dimension| (dimension.name(), self.value(dimension).to_string())))
    }
}

/// Registers that are not told are 0; those of an unknown dimension are an error.
impl<'de> Deserialize<'de> for Registers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let told = std::collections::BTreeMap::<Dimension, String>::deserialize(deserializer)?;
        told.into_iter().try_fold(Self::default(), |registers, (dimension, text)| {
            // No sign, no plus: one value has one text.
            let value = text.parse::<u128>().ok().filter(|value| value.to_string() == text);
            let value = value.ok_or_else(|| de::Error::custom("a register is a decimal number"))?;
            Ok(registers.with(dimension, value))
        })
    }
}

/// What a reading is of a resource's time with a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// One of many.
    Usual,
    /// The first: the resource was made, or came from another tenant.
    Begins,
    /// The last: the resource was deleted, or went to another tenant.
    Ends,
}

impl Mark {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Usual, Self::Begins, Self::Ends];
}

/// What a resource's registers said at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// The volume.
    #[serde(with = "number")]
    pub resource: VolumeId,
    /// Who pays for it from here on.
    #[serde(with = "number")]
    pub tenant: TenantId,
    /// By the prices of which class, from here on.
    #[serde(with = "number")]
    pub class: ClassId,
    /// Whose registers these are: they begin anew with each epoch of the meter. Use is a difference within one.
    #[serde(with = "number")]
    pub epoch: Epoch,
    /// The first of an epoch is 0, the next 1.
    pub sequence: u64,
    /// What it is of the resource's time with the tenant.
    pub mark: Mark,
    /// How often the tenant or the class of the resource has changed, this reading's change with it: by this a change is seen
    /// though the reading that said so is lost.
    pub changes: u64,
    /// When, on the meter's clock.
    #[serde(with = "number")]
    pub at: MeterTime,
    /// How many milliseconds on the meter's clock were an estimate until then: over a reboot it goes by the wall clock.
    pub estimated_ms: u64,
    /// When, milliseconds since 1970: what says to which month it belongs.
    pub wall_ms: u64,
    /// What they said.
    pub registers: Registers,
}

impl Reading {
    /// The first one of a resource, in the first epoch: nothing has been used.
    #[must_use]
    pub fn first(resource: VolumeId, tenant: TenantId, class: ClassId, at: MeterTime, wall_ms: u64) -> Self {
        Self {
            resource,
            tenant,
            class,
            epoch: Epoch(1),
            sequence: 0,
            mark: Mark::Begins,
            changes: 0,
            at,
            estimated_ms: 0,
            wall_ms,
            registers: Registers::default(),
        }
    }
}

/// Words of one number as that number.
pub(crate) mod number {
    use serde::{Deserialize, Deserializer, Serializer};
    use units::{ClassId, Epoch, MeterTime, TenantId, VolumeId};

    pub(crate) trait Number: Copy {
        fn value(self) -> u64;
        fn of(value: u64) -> Self;
    }

    macro_rules! numbers {
        ($($word:ident),*) => {$(
            impl Number for $word {
                fn value(self) -> u64 {
                    self.0
                }
                fn of(value: u64) -> Self {
                    Self(value)
                }
            }
        )*};
    }

    numbers!(VolumeId, TenantId, ClassId, Epoch, MeterTime);

    pub(crate) fn serialize<N: Number, S: Serializer>(word: &N, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(word.value())
    }

    pub(crate) fn deserialize<'de, N: Number, D: Deserializer<'de>>(deserializer: D) -> Result<N, D::Error> {
        u64::deserialize(deserializer).map(N::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        Reading {
            resource: VolumeId(7),
            tenant: TenantId(2),
            class: ClassId::DEFAULT,
            epoch: Epoch(1),
            sequence: 3,
            mark: Mark::Usual,
            changes: 1,
            estimated_ms: 60_000,
            at: MeterTime(300_000),
            wall_ms: 1_795_824_000_000,
            registers: Registers::default().with(Dimension::Written, u128::MAX).with(Dimension::Reads, 12),
        }
    }

    /// P7. What was read is what was written, to the last unit of the widest register.
    #[test]
    fn a_reading_goes_through_json_whole() {
        let text = serde_json::to_string(&reading()).expect("JSON");
        assert!(text.contains("\"written\":\"340282366920938463463374607431768211455\""), "{text}");
        assert_eq!(serde_json::from_str::<Reading>(&text).expect("a reading"), reading());
    }

    /// P7. A register that is no number, or has two texts, is refused.
    #[test]
    fn what_is_no_register_is_refused() {
        let text = serde_json::to_string(&reading()).expect("JSON");
        for wrong in ["\"-1\"", "\"+12\"", "\"012\"", "\"1e3\"", "12", "\"\""] {
            let text = text.replace("\"reads\":\"12\"", &format!("\"reads\":{wrong}"));
            assert!(serde_json::from_str::<Reading>(&text).is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<Reading>(&text.replace("\"reads\":", "\"rides\":")).is_err());
    }
}
