//! The register that the daemons of one machine share.
#![forbid(unsafe_code)]

#[cfg(test)]
mod patience;
#[cfg(test)]
mod sharing;
