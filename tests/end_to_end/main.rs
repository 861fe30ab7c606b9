//! End to end: the real program on a real kernel, spoken to by clients that others wrote.
//!
//! Each test starts its own daemon in a temporary folder, on sockets of its own. A test whose tools are not installed says
//! so by name on stderr and passes, except where `CI` is set.
#![forbid(unsafe_code)]

#[cfg(test)]
mod access;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod compaction;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod fake_source;
#[cfg(test)]
mod history;
#[cfg(test)]
mod host;
#[cfg(test)]
mod image_sources;
#[cfg(test)]
mod images;
#[cfg(test)]
mod initiator;
#[cfg(test)]
mod invoice;
#[cfg(test)]
mod iscsi;
#[cfg(test)]
mod iscsi_pdus;
#[cfg(test)]
mod metering;
#[cfg(test)]
mod mirror;
#[cfg(test)]
mod nbd_clients;
#[cfg(test)]
mod qos;
#[cfg(test)]
mod scrub;
#[cfg(test)]
mod sites;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod targets;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tool;
