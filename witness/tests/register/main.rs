//! The register that the daemons of one machine share.
#![forbid(unsafe_code)]

#[cfg(test)]
#[path = "../asking/mod.rs"]
mod asking;
#[cfg(test)]
mod sharing;
