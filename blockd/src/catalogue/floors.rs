//! Up to where the other site surely has the logs of mirrored volumes: what comes behind is kept whole, so that it can be sent when that
//! site is back. It is given up when space runs short.

use super::{Catalogue, ask};
use replication::Command;
use replication::seat::Event;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use units::{Lsn, VolumeId};

/// What is kept of mirrored logs. One that was not told of yet is kept as a whole.
#[derive(Debug, Default)]
pub(super) struct Floors(BTreeMap<u64, Floor>);

#[derive(Debug, Clone, Copy, Default)]
struct Floor {
    /// The other site has everything up to here.
    shared: Lsn,
    /// It goes on to take what comes.
    is_taking: bool,
    /// Space ran short: nothing is kept until it takes what comes again.
    is_given_up: bool,
    /// When its group was to be founded last.
    founded_at: Option<Instant>,
}

impl Floors {
    /// Notes how far the other site is, or that it is not known now.
    fn note(&mut self, volume: VolumeId, shared: Option<Lsn>) {
        let floor = self.0.entry(volume.0).or_default();
        floor.is_taking = shared.is_some();
        if let Some(shared) = shared {
            floor.is_given_up &= shared <= floor.shared;
            floor.shared = floor.shared.max(shared);
        }
    }

    /// What lies behind this operation is kept; nothing where all may go. The segment of the operation itself is kept, too: it tells where two
    /// logs part.
    pub(super) fn kept_from(&self, volume: u64) -> Option<Lsn> {
        let floor = self.0.get(&volume).copied().unwrap_or_default();
        (!floor.is_given_up).then(|| Lsn(floor.shared.0.saturating_sub(1)))
    }

    /// Gives up what is kept for a site that does not take it now; tells whether there was any.
    pub(super) fn give_up_one(&mut self) -> bool {
        let waits = |(_, floor): &(&u64, &mut Floor)| !floor.is_taking && !floor.is_given_up;
        let Some((volume, floor)) = self.0.iter_mut().find(waits) else { return false };
        floor.is_given_up = true;
        tracing::warn!(volume, "space runs short: what the other site lacks of a log is kept no more");
        true
    }

    fn is_founding_due(&mut self, volume: VolumeId) -> bool {
        let floor = self.0.entry(volume.0).or_default();
        let is_due = floor.founded_at.is_none_or(|at| at.elapsed() >= FOUND_AGAIN_AFTER);
        if is_due {
            floor.founded_at = Some(Instant::now());
        }
        is_due
    }

    /// Whether more is kept than goes by itself.
    pub(super) fn holds_back(&self) -> bool {
        self.0.values().any(|floor| !floor.is_taking && !floor.is_given_up)
    }
}

/// How often a group is to be founded of which no record is known.
const FOUND_AGAIN_AFTER: Duration = Duration::from_secs(10);

impl Catalogue {
    /// Has groups founded that begin here and of which no record is known yet: the witness was not there then, or this process.
    fn found_again(&self, volumes: impl Iterator<Item = VolumeId>) {
        for volume in volumes {
            let begins_here =
                self.read().volume(volume.0).and_then(|record| record.mirror).is_some_and(|mirror| !mirror.is_copy);
            let is_due = begins_here && self.write().floors.is_founding_due(volume);
            if is_due && self.tell_seat(volume, Event::Command(Command::Found)).is_err() {
                return;
            }
        }
    }

    /// Asks how far the other site is with each log, and whether space runs short of which some is kept for it.
    pub(super) async fn note_floors(&self) {
        if self.mirror.is_none() {
            return;
        }
        for shard in &self.shards {
            // A shard that has ended tells nothing, and is told of elsewhere.
            let Ok(shared) = ask::shared(shard).await else { return };
            {
                let mut shelf = self.write();
                shared.iter().for_each(|log| shelf.floors.note(log.volume, log.lsn));
            }
            self.found_again(shared.into_iter().filter(|log| !log.has_record).map(|log| log.volume));
        }
        if self.read().floors.holds_back() && ask::is_short(&self.store).await.unwrap_or(false) {
            self.want_space();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P6. What the other site lacks is kept until space runs short, and again once it takes what comes.
    #[test]
    fn a_log_is_kept_for_the_other_site_until_space_runs_short() {
        let mut floors = Floors::default();
        let volume = VolumeId(7);
        assert_eq!(floors.kept_from(7), Some(Lsn(0)));
        floors.note(volume, Some(Lsn(10)));
        assert_eq!((floors.kept_from(7), floors.holds_back()), (Some(Lsn(9)), false));
        assert!(!floors.give_up_one(), "it takes what comes");
        assert_eq!(floors.kept_from(7), Some(Lsn(9)));
        floors.note(volume, None);
        assert_eq!((floors.kept_from(7), floors.holds_back()), (Some(Lsn(9)), true));
        assert!(floors.give_up_one());
        assert_eq!((floors.kept_from(7), floors.holds_back()), (None, false));
        floors.note(volume, Some(Lsn(10)));
        assert_eq!(floors.kept_from(7), None, "it has nothing new yet");
        floors.note(volume, Some(Lsn(12)));
        assert_eq!(floors.kept_from(7), Some(Lsn(11)));
    }
}
