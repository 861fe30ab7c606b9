//! The connections of a life that others open, one by one.

use super::refusal;
use replication::wire::{Hello, LinkId, Refusal, RefusalCode};

/// What has come of the newest life. An older one is given up as soon as a newer one begins: who connects builds one at a time.
#[derive(Debug)]
pub(super) struct Gathering<S> {
    newest: Option<Newest<S>>,
}

#[derive(Debug)]
struct Newest<S> {
    first: Hello,
    /// One for each connection.
    places: Vec<Place<S>>,
}

#[derive(Debug)]
enum Place<S> {
    Free,
    /// Let in, and its answer is on its way.
    Taken,
    Filled(S),
}

impl<S> Default for Gathering<S> {
    fn default() -> Self {
        Self { newest: None }
    }
}

impl<S> Gathering<S> {
    /// Lets a connection in, to be put by [`Gathering::put`].
    pub(super) fn admit(&mut self, hello: &Hello) -> Result<(), Refusal> {
        let is_same = |first: &Hello| {
            (first.link, first.data_connections, first.pool) == (hello.link, hello.data_connections, hello.pool)
        };
        if hello.connection == 0 && self.newest.as_ref().is_none_or(|newest| newest.first.link != hello.link) {
            let places = (0..=hello.data_connections).map(|_| Place::Free).collect();
            self.newest = Some(Newest { first: *hello, places });
        }
        let Some(newest) = self.newest.as_mut().filter(|newest| is_same(&newest.first)) else {
            return Err(refusal(RefusalCode::Connection, "it belongs to no link that is being built"));
        };
        match newest.places.get_mut(usize::from(hello.connection)) {
            Some(place @ Place::Free) => *place = Place::Taken,
            Some(Place::Taken | Place::Filled(_)) | None => {
                return Err(refusal(RefusalCode::Connection, "the link has this connection already"));
            }
        }
        Ok(())
    }

    /// Puts a connection that was let in where it belongs; all of them once none is missing.
    pub(super) fn put(&mut self, (link, connection): (LinkId, u16), stream: S) -> Option<Vec<S>> {
        let newest = self.newest.as_mut().filter(|newest| newest.first.link == link)?;
        *newest.places.get_mut(usize::from(connection))? = Place::Filled(stream);
        if !newest.places.iter().all(|place| matches!(place, Place::Filled(_))) {
            return None;
        }
        let places = self.newest.take()?.places;
        Some(places.into_iter().filter_map(Place::into_stream).collect())
    }

    /// Gives up what has come of this life.
    pub(super) fn give_up(&mut self, link: LinkId) {
        self.newest.take_if(|newest| newest.first.link == link);
    }

    /// The life that is being built.
    pub(super) fn link(&self) -> Option<LinkId> {
        self.newest.as_ref().map(|newest| newest.first.link)
    }
}

impl<S> Place<S> {
    fn into_stream(self) -> Option<S> {
        match self {
            Self::Filled(stream) => Some(stream),
            Self::Free | Self::Taken => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::wire::VERSIONS;
    use units::{PoolId, SiteId};

    fn hello(link: u8, connection: u16) -> Hello {
        Hello {
            versions: VERSIONS,
            site: SiteId(1),
            wants: SiteId(2),
            pool: PoolId([1; 16]),
            link: LinkId([link; 16]),
            connection,
            data_connections: 2,
            window_bytes: 4096,
        }
    }

    fn put(gathering: &mut Gathering<u16>, link: u8, connection: u16) -> Option<Vec<u16>> {
        gathering.admit(&hello(link, connection)).unwrap();
        gathering.put((LinkId([link; 16]), connection), connection)
    }

    #[test]
    fn a_life_is_there_once_all_its_connections_are_in_their_order() {
        let mut gathering = Gathering::default();
        assert_eq!(put(&mut gathering, 1, 0), None);
        assert_eq!(put(&mut gathering, 1, 2), None);
        assert_eq!(put(&mut gathering, 1, 1), Some(vec![0, 1, 2]));
        assert!(gathering.admit(&hello(1, 1)).is_err(), "it is not built any more");
    }

    #[test]
    fn a_connection_comes_once_and_behind_its_control_connection() {
        let mut gathering = Gathering::<u16>::default();
        assert!(gathering.admit(&hello(1, 1)).is_err());
        gathering.admit(&hello(1, 0)).unwrap();
        assert!(gathering.admit(&hello(1, 0)).is_err());
        gathering.admit(&hello(1, 1)).unwrap();
        assert!(gathering.admit(&hello(1, 1)).is_err());
        let other = Hello { pool: PoolId([2; 16]), ..hello(1, 2) };
        assert!(gathering.admit(&other).is_err());
    }

    #[test]
    fn a_newer_life_takes_the_place_of_one_that_is_not_whole() {
        let mut gathering = Gathering::default();
        assert_eq!(put(&mut gathering, 1, 0), None);
        assert_eq!(put(&mut gathering, 2, 0), None);
        assert!(gathering.admit(&hello(1, 1)).is_err());
        assert_eq!(gathering.put((LinkId([1; 16]), 1), 1), None);
        assert_eq!(put(&mut gathering, 2, 1), None);
        assert_eq!(put(&mut gathering, 2, 2), Some(vec![0, 1, 2]));
        assert_eq!(put(&mut gathering, 3, 0), None);
        gathering.give_up(LinkId([3; 16]));
        assert_eq!(gathering.link(), None);
    }
}
