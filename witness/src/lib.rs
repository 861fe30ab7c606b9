//! The drivers of a mirror's witness: what carries out [`replication::Action::ReadWitness`] and [`replication::Action::Swap`].
//!
//! [`Etcd`] is a client of an etcd cluster, [`RegisterClient`] one of a [`Register`], which the daemons of one machine share;
//! [`Witness`] is either. An answer is what is known for certain: whatever may have been asked for and was not answered is
//! `Unknown`, and nothing is asked for twice. What an answer means the role machine decides. See docs/mirror.md, Witness.

#![forbid(unsafe_code)]

mod address;
mod base64;
mod etcd;
mod listing;
mod register;
mod witness;

pub use address::{AddressError, WitnessAddress};
pub use etcd::{ClusterId, ENDPOINTS_MAX, Etcd, EtcdConfig, EtcdError, HostPort, NotAClusterId};
pub use listing::{ListError, Listed};
pub use register::{
    Answer, GROUPS_MAX, MessageError, Register, RegisterClient, RegisterError, RegisterOptions, RegisterServer,
    Request, Swapped,
};
pub use witness::{Witness, WitnessError};
