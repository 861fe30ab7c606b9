//! Where frames of the link go: to the shard that has the volume of their group, or to the host itself.

use crate::shard::{Message, MirrorMessage, ShardHandle};
use link::{LifeNumber, News, Sink, Why};
use replication::wire::{Enrolment, Frame, Text};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::UnboundedSender;
use units::{GroupId, VolumeId};

/// What the link tells that is no seat's.
#[derive(Debug)]
pub(super) enum Errand {
    /// The other site asks this one to hold a copy of a volume.
    Enrol { life: LifeNumber, group: GroupId, number: u64, volume: Box<Enrolment> },
    /// The other site has answered that question.
    Enrolled { number: u64, result: Result<(), Text> },
    /// Bytes of batches of a group that is not here.
    Unwanted { life: LifeNumber, group: GroupId, bytes: u64 },
}

/// Whose a group is.
#[derive(Debug, Clone)]
struct Route {
    shard: ShardHandle,
    volume: VolumeId,
}

/// The groups of this site, and the life of the link.
#[derive(Debug, Default)]
struct Table {
    life: Option<LifeNumber>,
    groups: BTreeMap<GroupId, Route>,
    /// What was told of the link last, so that it is not told over and over.
    told: Option<String>,
}

/// The link's sink.
#[derive(Debug)]
pub(super) struct Routes {
    table: Mutex<Table>,
    errands: UnboundedSender<Errand>,
}

impl Routes {
    pub(super) fn new(errands: UnboundedSender<Errand>) -> Self {
        Self { table: Mutex::default(), errands }
    }

    // A panic while the lock is held leaves the table whole: every change of it is one call.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the frames of a group go to its shard from now on, which is told of the link.
    pub(super) fn add(&self, group: GroupId, shard: ShardHandle, volume: VolumeId) {
        let mut table = self.table();
        let route = Route { shard, volume };
        route.send(MirrorMessage::Link(table.life));
        table.groups.insert(group, route);
    }

    pub(super) fn remove(&self, group: GroupId) {
        self.table().groups.remove(&group);
    }

    /// The life of the link, while it is up.
    pub(super) fn life(&self) -> Option<LifeNumber> {
        self.table().life
    }

    fn begin_errand(&self, errand: Errand) {
        // The host has ended: nobody needs it.
        let _ = self.errands.send(errand);
    }

    fn on_frame(&self, life: LifeNumber, frame: Frame) {
        match frame {
            Frame::Enrol { group, number, volume } => self.begin_errand(Errand::Enrol { life, group, number, volume }),
            Frame::Enrolled { number, result, .. } => self.begin_errand(Errand::Enrolled { number, result }),
            Frame::Say { .. }
            | Frame::Align { .. }
            | Frame::Aligned { .. }
            | Frame::Want { .. }
            | Frame::Begins { .. }
            | Frame::Batch { .. }
            | Frame::Committed { .. }
            | Frame::MakeDurable { .. }
            | Frame::Has { .. }
            | Frame::FellOut { .. }
            | Frame::Ask { .. }
            | Frame::Answer { .. }
            | Frame::Credit { .. }
            | Frame::Ping { .. }
            | Frame::Pong { .. }
            | Frame::Bye(_) => self.hand_on(life, frame),
        }
    }

    /// Hands a frame to the seat of its group.
    fn hand_on(&self, life: LifeNumber, frame: Frame) {
        let Some(group) = frame.group() else { return };
        let route = self.table().groups.get(&group).cloned();
        match route {
            Some(route) => route.send(MirrorMessage::Frame { life, frame: Box::new(frame) }),
            None if frame.payload_bytes() > 0 => {
                self.begin_errand(Errand::Unwanted { life, group, bytes: frame.payload_bytes() });
            }
            None => {}
        }
    }

    /// A change of the link, told to every group in the same order.
    fn tell_all(&self, message: impl Fn() -> MirrorMessage) {
        self.table().groups.values().for_each(|route| route.send(message()));
    }

    fn set_life(&self, life: Option<LifeNumber>) {
        let mut table = self.table();
        table.life = life;
        table.groups.values().for_each(|route| route.send(MirrorMessage::Link(life)));
    }

    fn log_failure(&self, why: &Why) {
        let text = why.to_string();
        let mut table = self.table();
        if table.told.as_ref() != Some(&text) {
            tracing::warn!(why = text, "there is no link to the other site");
            table.told = Some(text);
        }
    }
}

impl Sink for Routes {
    fn take(&self, news: News) {
        match news {
            News::Up { life, peer } => {
                tracing::info!(%life, site = %peer.site, "the link to the other site is up");
                self.table().told = None;
                self.set_life(Some(life));
            }
            News::Down { life, why } => {
                tracing::warn!(%life, %why, "the link to the other site is down");
                self.set_life(None);
            }
            News::Frame { life, frame } => self.on_frame(life, frame),
            News::Room { life, .. } => self.tell_all(|| MirrorMessage::Room(life)),
            News::Slow { life, is_slow } => {
                tracing::warn!(%life, is_slow, "whether the other site answers too slowly has changed");
                self.tell_all(|| MirrorMessage::Slow { life, is_slow });
            }
            News::NotUp { why } => self.log_failure(&why),
        }
    }
}

impl Route {
    fn send(&self, message: MirrorMessage) {
        // A shard that has ended has no use for it.
        let _ = self.shard.send(Message::Mirror { volume: self.volume, message: Box::new(message) });
    }
}
