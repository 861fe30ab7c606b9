//! What a link is told when it starts.

use crate::tls::{TlsConfigError, TlsFiles};
use replication::wire::{CONNECTIONS_MAX, Versions};
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use units::{PoolId, SiteId};

/// What a link is told when it starts.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// The own site.
    pub site: SiteId,
    /// The other one.
    pub peer: SiteId,
    /// The own pool, which the other site is told.
    pub pool: PoolId,
    /// The versions that are spoken: `replication::wire::VERSIONS` but in tests of what another program says.
    pub versions: Versions,
    /// Where the other site may connect to; none where it cannot.
    pub listen: Option<SocketAddr>,
    /// Where the other site listens, `host:port`; none where it cannot be reached.
    pub peer_address: Option<String>,
    /// Certificates.
    pub tls: TlsFiles,
    /// How many connections carry data when this site connects: 1 to [`CONNECTIONS_MAX`].
    pub data_connections: u16,
    /// How many bytes of batches are taken on a data connection before the first of them has been consumed. A longer batch
    /// comes alone.
    pub window_bytes: u64,
    /// How many bytes of batches wait for being sent on a data connection. A longer batch waits alone.
    pub queue_bytes: u64,
    /// How long what takes.
    pub times: Times,
}

impl LinkConfig {
    /// Whether this site connects. Of two sites that can both be reached it is the one with the lower id; one that listens nowhere
    /// connects whatever its id is.
    ///
    /// So at most one of two sites connects to one that listens, and there is never a second link to choose from. Where only one
    /// direction can be reached, which is a matter of firewalls and known beforehand, the configuration says so: the site that cannot be
    /// reached is given no address to listen at, the other one none to connect to.
    #[must_use]
    pub fn connects(&self) -> bool {
        self.peer_address.is_some() && (self.site < self.peer || self.listen.is_none())
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.site == self.peer {
            return Err(ConfigError::OneSite { site: self.site });
        }
        if self.listen.is_none() && !self.connects() {
            return Err(ConfigError::NoAddress);
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.data_connections) {
            return Err(ConfigError::Connections { found: self.data_connections });
        }
        if self.window_bytes == 0 || self.queue_bytes == 0 {
            return Err(ConfigError::Nothing);
        }
        let Times { ping, silence, backoff_min, backoff_max, .. } = self.times;
        if ping.is_zero() || silence < ping * 2 || backoff_min.is_zero() || backoff_max < backoff_min {
            return Err(ConfigError::Times);
        }
        Ok(())
    }
}

/// How long what takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Between two questions whether the other site is there.
    pub ping: Duration,
    /// A connection on which nothing is heard for so long is lost. At least twice `ping`.
    pub silence: Duration,
    /// A connection that is not open by then is given up.
    pub opening: Duration,
    /// The first pause before the other site is tried again.
    pub backoff_min: Duration,
    /// The longest one.
    pub backoff_max: Duration,
    /// A life that has lasted so long makes the pauses begin anew.
    pub settled: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            ping: Duration::from_millis(250),
            silence: replication::times::SILENCE,
            opening: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            settled: Duration::from_secs(1),
        }
    }
}

/// The link cannot start.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Both sites are the same.
    #[error("both sites of the link are site {site}")]
    OneSite {
        /// Which.
        site: SiteId,
    },
    /// Nobody could ever connect.
    #[error("the link neither listens nor connects: give it an address of its own or of the other site")]
    NoAddress,
    /// A number of connections that cannot be.
    #[error("{found} data connections, 1 to {CONNECTIONS_MAX} can be")]
    Connections {
        /// What was asked for.
        found: u16,
    },
    /// No batch could ever pass.
    #[error("a link without a window or without a queue carries nothing")]
    Nothing,
    /// Times that contradict each other.
    #[error("the link's times contradict each other")]
    Times,
    /// The certificates are of no use.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The address is not to be had.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Trust;
    use replication::wire::VERSIONS;

    fn config(site: u8, peer: u8, has_own: bool, has_peers: bool) -> LinkConfig {
        LinkConfig {
            site: SiteId(site),
            peer: SiteId(peer),
            pool: PoolId([site; 16]),
            versions: VERSIONS,
            listen: has_own.then(|| "127.0.0.1:0".parse().unwrap()),
            peer_address: has_peers.then(|| "localhost:1".to_owned()),
            tls: TlsFiles { certificate: "a".into(), key: "b".into(), trust: Trust::Pinned("c".into()) },
            data_connections: 1,
            window_bytes: 1,
            queue_bytes: 1,
            times: Times::default(),
        }
    }

    #[test]
    fn of_two_sites_at_most_one_connects_to_one_that_listens() {
        for addresses in 0..16_u8 {
            let has = |bit: u8| addresses >> bit & 1 == 1;
            let (lower, higher) = (config(1, 2, has(0), has(1)), config(2, 1, has(2), has(3)));
            let lower_reaches = lower.connects() && higher.listen.is_some();
            let higher_reaches = higher.connects() && lower.listen.is_some();
            assert!(!(lower_reaches && higher_reaches));
            // Where one direction is configured at both ends, it is used.
            let is_possible = (has(1) && has(2)) || (has(3) && has(0) && !has(2));
            assert_eq!(lower_reaches || higher_reaches, is_possible, "{addresses:04b}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let refused = |config: LinkConfig| config.check().unwrap_err().to_string();
        let good = || config(1, 2, true, true);
        assert!(good().check().is_ok());
        assert!(refused(config(1, 1, true, true)).contains("both sites"));
        assert!(refused(config(1, 2, false, false)).contains("neither listens nor connects"));
        assert!(refused(LinkConfig { data_connections: 0, ..good() }).contains("data connections"));
        assert!(refused(LinkConfig { data_connections: 17, ..good() }).contains("data connections"));
        assert!(refused(LinkConfig { window_bytes: 0, ..good() }).contains("window"));
        let times = Times { silence: Duration::from_millis(300), ..Times::default() };
        assert!(refused(LinkConfig { times, ..good() }).contains("times"));
    }
}
