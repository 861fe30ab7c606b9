//! Where to listen or to call: `host:port` or `unix:PATH`.

use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// An address as a person gives it. A host may be a name; it is looked up when used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// `host:port`; an IPv6 host stands in brackets.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// 0 lets the system choose one to listen on.
        port: u16,
    },
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: {reason}, write HOST:PORT, [IPV6]:PORT or unix:PATH")]
pub(crate) struct InvalidAddress {
    text: String,
    reason: &'static str,
}

impl Address {
    /// The addresses that it stands for; none for a unix socket.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Tcp { host, port } => Ok((host.as_str(), *port).to_socket_addrs()?.collect()),
            Self::Unix(_) => Ok(Vec::new()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let refused = |reason| InvalidAddress { text: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(refused("the path is missing")) } else { Ok(Self::Unix(path.into())) };
        }
        if text.contains("//") {
            return Err(refused("it is a URL"));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| refused("the port is missing"))?;
        let port = port.parse().map_err(|_| refused("the port is not a number up to 65535"))?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(bare) => bare,
            None if host.contains(':') => return Err(refused("an IPv6 address wants brackets")),
            None => host,
        };
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(refused("the host is missing or holds a slash or space"));
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_was_given() {
        for text in ["127.0.0.1:10809", "[::1]:0", "storage.example:9440", "unix:/run/aljibe/nbd.sock", "unix:rel"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_refused_address_says_what_is_wrong_with_it() {
        for (text, reason) in [
            ("127.0.0.1", "port is missing"),
            ("127.0.0.1:", "port is not a number"),
            ("127.0.0.1:65536", "port is not a number"),
            ("::1:9440", "brackets"),
            (":9440", "host is missing"),
            ("http://127.0.0.1:9440", "URL"),
            ("unix:", "path is missing"),
        ] {
            let refusal = text.parse::<Address>().unwrap_err().to_string();
            assert!(refusal.contains(reason), "{refusal}");
        }
    }
}
