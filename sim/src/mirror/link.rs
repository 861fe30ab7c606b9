//! The connection between the sites, and the log's bytes on it.

use super::eras::Eras;
use super::log::Entry;
use super::site::Stream;
use super::{Happening, MICROSECOND, MILLISECOND, Next, World};
use replication::{Event, Message, PeerAck, Position, Role};
use units::{Epoch, Lsn, SiteId};

/// Most operations that are sent at once.
const BATCH_MAX: usize = 32;

/// The link.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Nothing arrives from this site at the other one.
    pub(super) is_cut: [bool; 2],
    /// Counts connections.
    pub(super) connection: u64,
    /// What is added to the time that everything takes.
    pub(super) delay_ms: u64,
    /// And to that, while it is slow.
    pub(super) extra_ms: u64,
    /// When the last of what a site sent on this connection arrives: a connection keeps order.
    pub(super) arrival: [u64; 2],
    /// Both sites have been told that it is there.
    pub(super) is_up: bool,
}

/// What the logs say to each other.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// Where does my log, which has these eras, part from yours of this epoch?
    Align { connection: u64, number: u64, epoch: Epoch, eras: Eras },
    /// There.
    Aligned { connection: u64, number: u64, common: Position },
    /// Send what is behind `after`.
    Want { connection: u64, epoch: Epoch, after: Position },
    /// This is what is behind `after`.
    Batch { from: SiteId, epoch: Epoch, after: Position, entries: Vec<Entry> },
    /// So far is the log of the follower.
    Has { connection: u64, ack: PeerAck },
}

impl World {
    pub(super) fn say_to_peer(&mut self, site: usize, message: Message) {
        self.send(site, Next::Member(Event::Heard(message)));
    }

    fn send(&mut self, from: usize, next: Next) {
        if !self.link.is_up || self.link.is_cut[from] {
            return;
        }
        let delay =
            (self.link.delay_ms + self.link.extra_ms) * MILLISECOND + self.random.within(100, 2000) * MICROSECOND;
        let arrival = (self.time + delay).max(self.link.arrival[from] + 1);
        self.link.arrival[from] = arrival;
        self.site_at(arrival, 1 - from, next);
    }

    /// The connection is lost: part of what is on its way may yet arrive, and reordered with what the next one carries.
    pub(super) fn reset_link(&mut self) {
        self.link.connection += 1;
        self.link.arrival = [0, 0];
        self.set_link(false);
        let is_dead = self.link.is_cut[0] || self.link.is_cut[1];
        let later_ms = *self.random.pick(&[30, 600]);
        let lost_per_mille = *self.random.pick(&[0, 500, 1000]);
        let on_the_way: Vec<(u64, u64)> = self
            .queue
            .iter()
            .filter(|(_, happening)| {
                let Happening::Site { next, .. } = happening else { return false };
                matches!(next, Next::Data(_) | Next::Member(Event::Heard(_)))
            })
            .map(|(key, _)| *key)
            .collect();
        for key in on_the_way {
            let Some(happening) = self.queue.remove(&key) else { continue };
            if !self.random.chance(lost_per_mille) {
                let later = self.random.below(later_ms * MILLISECOND);
                self.at(key.0 + later, happening);
            }
        }
        if !is_dead {
            self.set_link(true);
        }
    }

    fn set_link(&mut self, is_up: bool) {
        self.link.is_up = is_up;
        for site in 0..2 {
            self.site_at(self.time, site, Next::Member(Event::Link { is_up }));
        }
    }

    /// The follower asks for what comes after its log.
    pub(super) fn want(&mut self, site: usize) {
        let Some(process) = &self.sites[site].process else { return };
        let Role::Follow { epoch, .. } = process.role else { return };
        let after = self.sites[site].log.end();
        let connection = self.link.connection;
        self.send(site, Next::Data(Data::Want { connection, epoch, after }));
    }

    /// A follower that has got nothing for a while asks again: the primary may not have led yet when it asked.
    pub(super) fn want_again(&mut self, site: usize) {
        let end = self.sites[site].log.end();
        let Some(process) = &mut self.sites[site].process else { return };
        process.quiet_ticks = if process.quiet_at == end { process.quiet_ticks + 1 } else { 0 };
        process.quiet_at = end;
        if process.quiet_ticks % 10 == 9 {
            self.want(site);
            self.say_what_it_has(site);
        }
    }

    pub(super) fn on_data(&mut self, site: usize, data: Data) {
        match data {
            Data::Align { connection, number, epoch, eras } => self.on_align(site, (connection, number, epoch), &eras),
            Data::Aligned { connection, number, common } if connection == self.link.connection => {
                self.tell(site, Event::Aligned { number, common: common.lsn });
            }
            Data::Aligned { .. } => {}
            Data::Want { connection, epoch, after } => self.on_want(site, connection, epoch, after),
            Data::Batch { from, epoch, after, entries } => self.on_batch(site, from, epoch, (after, &entries)),
            Data::Has { connection, ack } => self.on_has(site, connection, ack),
        }
    }

    /// The follower says how far its log is.
    pub(super) fn say_what_it_has(&mut self, site: usize) {
        let Some(process) = &self.sites[site].process else { return };
        let Role::Follow { epoch, .. } = process.role else { return };
        let (log, connection) = (&self.sites[site].log, self.link.connection);
        let ack = PeerAck { epoch, appended: log.end().lsn, durable: log.durable() };
        self.send(site, Next::Data(Data::Has { connection, ack }));
    }

    fn on_has(&mut self, site: usize, connection: u64, ack: PeerAck) {
        let is_now = connection == self.link.connection;
        let Some(process) = &mut self.sites[site].process else { return };
        if is_now && process.ack.is_none_or(|before| before.epoch <= ack.epoch) {
            process.ack = Some(ack);
            self.site_at(self.time, site, Next::Report);
        }
    }

    /// The secondary asks where its log parts from the primary's.
    pub(super) fn ask_alignment(&mut self, site: usize, number: u64, epoch: Epoch) {
        let (connection, eras) = (self.link.connection, self.sites[site].log.eras().clone());
        self.send(site, Next::Data(Data::Align { connection, number, epoch, eras }));
    }

    fn on_align(&mut self, site: usize, (connection, number, epoch): (u64, u64, Epoch), eras: &Eras) {
        let Some(process) = &self.sites[site].process else { return };
        let leads = matches!(process.role, Role::Lead { epoch: led, .. } if led == epoch) && process.pending.is_none();
        if leads && connection == self.link.connection {
            let common = self.sites[site].log.eras().common(eras);
            self.send(site, Next::Data(Data::Aligned { connection, number, common }));
        }
    }

    fn on_want(&mut self, site: usize, connection: u64, epoch: Epoch, after: Position) {
        let has_it = self.sites[site].log.entries().iter().any(|entry| entry.position == after);
        let Some(process) = &mut self.sites[site].process else { return };
        let is_known = has_it || after == Position::ZERO;
        if matches!(process.role, Role::Lead { epoch: led, .. } if led == epoch) && is_known {
            process.stream = Some(Stream { connection, epoch, next: after.lsn.next() });
            self.stream(site);
        }
    }

    /// Sends the next part of the log.
    pub(super) fn stream(&mut self, site: usize) {
        let connection = self.link.connection;
        let Some(process) = &mut self.sites[site].process else { return };
        let is_role = |role: Role, epoch| match role {
            Role::Lead { epoch: led, .. } => led == epoch,
            // A planned switch drains.
            Role::Freeze { .. } => true,
            Role::Follow { .. } | Role::SealAndCut { .. } => false,
        };
        let Some(stream) =
            process.stream.filter(|stream| stream.connection == connection && is_role(process.role, stream.epoch))
        else {
            return;
        };
        let log = self.sites[site].log.entries();
        let all = || log.iter().chain(&process.appending);
        let first = stream.next.0 as usize;
        let entries: Vec<Entry> = all().skip(first - 1).take(BATCH_MAX).copied().collect();
        let after =
            first.checked_sub(2).and_then(|index| all().nth(index)).map_or(Position::ZERO, |entry| entry.position);
        let Some(last) = entries.last() else { return };
        let next = Lsn(last.position.lsn.0 + 1);
        let is_more = all().count() >= next.0 as usize;
        process.stream = Some(Stream { next, ..stream });
        let from = self.sites[site].config.me;
        self.send(site, Next::Data(Data::Batch { from, epoch: stream.epoch, after, entries }));
        if is_more {
            self.site_at(self.time + MILLISECOND, site, Next::Stream);
        }
    }

    fn on_batch(&mut self, site: usize, from: SiteId, epoch: Epoch, (after, entries): (Position, &[Entry])) {
        let Some(process) = &self.sites[site].process else { return };
        if process.pending.is_some() || !process.role.accepts(from, epoch) {
            return;
        }
        let end = self.sites[site].log.end();
        let fits = after == end
            && entries.first().is_none_or(|first| {
                let before = self.sites[site].log.last();
                Entry::after(before, first.position.epoch, first.block, first.value).chain == first.chain
            });
        if fits {
            for entry in entries {
                self.sites[site].log.append(*entry);
            }
            self.on_grown(site);
        } else if after.lsn > end.lsn {
            self.want(site);
        }
    }
}
