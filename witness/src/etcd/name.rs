//! The addresses of a member that is named: looked up once for all who want them.
//!
//! A lookup runs on a thread of the runtime that nothing can stop, for as long as the resolver likes. So there is one under way of
//! each name at most, whoever gave up waiting for it, and what it found is kept.

use super::endpoint::HostPort;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long what was found counts as new. After it there is another lookup, beside which the old addresses are used.
const FRESH_DURATION: Duration = Duration::from_secs(30);

/// What a lookup found, or why nothing.
type Found = Result<Vec<SocketAddr>, String>;

/// A name with its port, and what is known of it.
#[derive(Debug)]
pub(super) struct Name {
    at: HostPort,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    /// When the last lookup that found something was begun.
    since: Option<Instant>,
    /// The one that was begun last: it is under way while it has told nothing and its sender is there.
    lookup: Option<(Instant, watch::Receiver<Option<Found>>)>,
}

impl Name {
    pub(super) fn new(at: &HostPort) -> Self {
        Self { at: at.clone(), known: Mutex::new(Known::default()) }
    }

    /// Its addresses: those that are known, or what the lookup finds that is under way. To be called within a tokio runtime.
    pub(super) async fn addresses(&self) -> Found {
        if let Ok(address) = self.at.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.at.port)]);
        }
        let (host, port) = (self.at.host.clone(), self.at.port);
        let look = move || async move {
            let found = lookup_host((host.as_str(), port)).await.map(Iterator::collect::<Vec<_>>);
            match found {
                Ok(found) if found.is_empty() => Err(format!("{host} has no address")),
                Ok(found) => Ok(found),
                Err(error) => Err(format!("{host} is not found: {error}")),
            }
        };
        self.known_or(look).await
    }

    async fn known_or<F, L>(&self, look: F) -> Found
    where
        F: FnOnce() -> L,
        L: Future<Output = Found> + Send + 'static,
    {
        let looking = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.learn();
            if known.is_fresh() {
                return Ok(known.addresses.clone());
            }
            let looking = known.looking().unwrap_or_else(|| known.begin(look()));
            if !known.addresses.is_empty() {
                return Ok(known.addresses.clone());
            }
            looking
        };
        wait(looking).await
    }
}

impl Known {
    /// Takes over what a lookup has found. One that failed leaves what was known.
    fn learn(&mut self) {
        let Some((since, lookup)) = &self.lookup else { return };
        let found = lookup.borrow().clone();
        if let Some(Ok(addresses)) = found {
            (self.addresses, self.since) = (addresses, Some(*since));
            self.lookup = None;
        }
    }

    fn is_fresh(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() < FRESH_DURATION)
    }

    /// The lookup that is under way.
    fn looking(&self) -> Option<watch::Receiver<Option<Found>>> {
        let (_, lookup) = self.lookup.as_ref()?;
        let is_under_way = lookup.borrow().is_none() && lookup.has_changed().is_ok();
        is_under_way.then(|| lookup.clone())
    }

    fn begin(&mut self, look: impl Future<Output = Found> + Send + 'static) -> watch::Receiver<Option<Found>> {
        let (tell, lookup) = watch::channel(None);
        // Nobody's own: it goes on when those who wait for it give up.
        tokio::spawn(async move { tell.send_replace(Some(look.await)) });
        self.lookup = Some((Instant::now(), lookup.clone()));
        lookup
    }
}

async fn wait(mut looking: watch::Receiver<Option<Found>>) -> Found {
    let found = looking.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
    found.unwrap_or_else(|| Err("its name was not looked up".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    /// P4, P8. However many ask and give up, one lookup is under way; what it finds is found by all who ask later.
    #[tokio::test]
    async fn a_name_is_looked_up_once() {
        let name = Name::new(&HostPort { host: "a".to_owned(), port: 1 });
        let (looks, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let ask = |found: Found| {
            let (looks, gate) = (Arc::clone(&looks), Arc::clone(&gate));
            name.known_or(move || async move {
                looks.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                found
            })
        };
        let found: Found = Ok(vec![SocketAddr::new([127, 0, 0, 1].into(), 1)]);
        for _ in 0..20 {
            timeout(Duration::from_millis(2), ask(Err("fails".to_owned()))).await.unwrap_err();
        }
        gate.add_permits(1);
        // A failure is told to who waits for it, and another lookup begun for the next one.
        while ask(found.clone()).await.is_err() {
            gate.add_permits(1);
        }
        for _ in 0..20 {
            assert_eq!(ask(Err("fails".to_owned())).await, found);
        }
        assert_eq!(looks.load(Ordering::SeqCst), 2);
    }

    /// P4. An address needs no lookup.
    #[tokio::test]
    async fn an_address_is_its_own() {
        let name = Name::new(&HostPort { host: "::1".to_owned(), port: 7 });
        assert_eq!(name.addresses().await, Ok(vec!["[::1]:7".parse().unwrap()]));
        assert!(name.known.lock().unwrap().lookup.is_none());
    }
}
