//! Either witness.

use crate::address::WitnessAddress;
use crate::etcd::{ClusterId, Etcd, EtcdError};
use crate::listing::{ListError, Listed};
use crate::register::RegisterClient;
use replication::{ReadAnswer, Record, Revision, SwapAnswer};
use thiserror::Error;
use units::GroupId;

/// A mirror's witness.
#[derive(Debug)]
pub enum Witness {
    /// An etcd cluster.
    Etcd(Etcd),
    /// A register that the daemons of this machine share.
    Register(RegisterClient),
}

/// Why a witness cannot be asked.
#[derive(Debug, Error)]
pub enum WitnessError {
    /// The etcd cluster cannot.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

impl Witness {
    /// Begins to ask the witness at `address`; whether it answers is told by its answers. `expected` is the cluster that it was
    /// before, if it was any: another one is not believed. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`WitnessError`]: what the address names is of no use.
    pub fn open(address: WitnessAddress, expected: Option<ClusterId>) -> Result<Self, WitnessError> {
        Ok(match address {
            WitnessAddress::Etcd(config) => Self::Etcd(Etcd::new(config, expected)?),
            WitnessAddress::Register(path) => Self::Register(RegisterClient::new(path)),
        })
    }

    /// Reads a group's record, linearizably. Takes a second at most.
    pub async fn read(&self, group: GroupId) -> ReadAnswer {
        match self {
            Self::Etcd(etcd) => etcd.read(group).await,
            Self::Register(register) => register.read(group).await,
        }
    }

    /// Puts `record` in place of what has revision `expected`, or of nothing. Takes a second at most.
    pub async fn swap(&self, group: GroupId, expected: Option<Revision>, record: &Record) -> SwapAnswer {
        match self {
            Self::Etcd(etcd) => etcd.swap(group, expected, record).await,
            Self::Register(register) => register.swap(group, expected, record).await,
        }
    }

    /// What there is of all groups, by their numbers. Pages that come one after the other: not one moment's picture.
    ///
    /// # Errors
    /// [`ListError`]: a page did not come, or there are too many.
    pub async fn list(&self) -> Result<Vec<Listed>, ListError> {
        match self {
            Self::Etcd(etcd) => etcd.list().await,
            Self::Register(register) => register.list().await,
        }
    }

    /// The cluster that is believed, once one is: to be kept, and given to [`Self::open`] the next time.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        match self {
            Self::Etcd(etcd) => etcd.cluster(),
            Self::Register(_) => None,
        }
    }
}
