//! The witness that is an etcd cluster, against real clusters of Debian's etcd.
//!
//! Each test starts its own cluster in a temporary folder, on addresses of its own. One whose tools are not installed says so by
//! name on stderr and passes, except where `CI` is set.
#![forbid(unsafe_code)]

#[cfg(test)]
mod answers;
#[cfg(test)]
#[path = "../asking/mod.rs"]
mod asking;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod lies;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod tls;
