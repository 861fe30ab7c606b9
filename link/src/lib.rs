//! The link between the daemons of two sites: carries the frames of `replication::wire` over several TLS connections, as long as
//! all of them are well.
//!
//! [`Link::start`] keeps one link up, over and over; each time that it is up is a **life** with a number. A [`Sink`] is told what happens
//! and given what comes; [`LinkHandle::send`] sends, from any thread and without waiting. What neither promises is that what was sent
//! arrives: a life may end any time. What a life carries arrives in its order for each group, once, and in no other life.
//!
//! docs/mirror.md, "Link", has the protocol. Which frames mean what to whom is not known here.

#![forbid(unsafe_code)]

mod backoff;
mod config;
mod connection;
mod life;
mod link;
mod news;
mod opening;
mod outbox;
mod slowness;
mod statistics;
mod tls;

pub use config::{ConfigError, LinkConfig, Times};
pub use link::{Link, LinkHandle, Rejected};
pub use news::{LifeNumber, News, Peer, Sink, Why};
pub use statistics::Statistics;
pub use tls::{TlsConfigError, TlsFiles, Trust, site_name};
