//! Volumes that are mirrored: begun, told of, moved, ended.

use super::book::RECORDS_MAX;
use super::record::{Metered, MirrorRecord, Record, VolumeRecord, VolumeState};
use super::tenants::Usage;
use super::trial::is_trial;
use super::{Catalogue, CatalogueError, Entry, ask};
use crate::mirror::{MirrorHost, MirrorView, SITE_MAX, Wanted};
use crate::shard::{Message, MirrorMessage, Retiring};
use replication::seat::Event;
use replication::wire::Enrolment;
use replication::{Command, times::COMMAND_PATIENCE};
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use units::{GroupId, Lsn, SiteId, VolumeId};
use volume::engine::Volume;
use volume::pool::SegmentRow;
use volume::recover::fresh;
use volume::request::Request;

/// How often a change is looked for that was asked of a seat.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long one try of a planned switch may take: it calls itself off before.
const SWITCH_WITHIN: Duration = Duration::from_secs(2);

/// How long a stop waits for the other site to lead.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(10);

/// How long a volume that begins to be mirrored has for serving again.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// The ids that a site gives out: records of both sites lie side by side in the catalogues of both.
pub(super) const fn ids_of(site: SiteId) -> Range<u64> {
    let first = (site.0 as u64) << 24;
    // A daemon that is no site shares with nobody.
    if first == 0 { 1..RECORDS_MAX } else { first..((site.0 as u64 + 1) << 24) }
}

const _: () = assert!(((SITE_MAX as u64 + 1) << 24) <= RECORDS_MAX);

/// Makes copies that the other site wants, until the catalogue has gone.
pub(super) async fn hold_copies(catalogue: Weak<Catalogue>, mut wanted: mpsc::UnboundedReceiver<Wanted>) {
    while let Some(Wanted { group, volume, done }) = wanted.recv().await {
        let Some(catalogue) = catalogue.upgrade() else { return };
        let name = volume.name.clone();
        let held = catalogue.hold_copy(group, volume).await;
        if let Err(error) = &held {
            tracing::warn!(name, %group, %error, "a copy of a volume is refused to the other site");
        }
        // Whoever asked may have given up; it asks again.
        let _ = done.send(held.map_err(|error| error.to_string()));
    }
}

impl Catalogue {
    /// Has a volume mirrored to the other site, of which this one is the first primary.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`]; [`CatalogueError::Mirror`] says why it is not.
    pub async fn mirror(&self, name: &str, peer: SiteId) -> Result<MirrorView, CatalogueError> {
        self.refuse_if_stopping()?;
        let entry = self.show_served(name)?;
        let host = self.mirror_host()?;
        let record = self.to_be_mirrored(host, (&entry, peer)).await?;
        if is_trial() {
            return Err(refused("it could be begun; what comes of it is known when it is"));
        }
        let group = GroupId(self.book.lock().await.take_ids(1).await?);
        let (class, created_bytes, created_ms) = (self.class_name(entry.class), record.size_bytes, record.created_ms);
        let enrolment = Enrolment { volume: entry.volume, name: record.name.clone(), class, created_bytes, created_ms };
        // The other site may be asking the same of this one: nothing is locked while it is asked.
        host.is_new(group).await.map_err(refused)?;
        host.enrol(group, enrolment).await.map_err(refused)?;
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let record = match self.to_be_mirrored(host, (&self.show_served(name)?, peer)).await? {
            same if same == record => record,
            _ => return Err(refused("it was changed meanwhile: delete the copy at the other site, and try again")),
        };
        let mirror = MirrorRecord { group: group.0, peer: peer.0, is_copy: false };
        let mirrored = VolumeRecord { mirror: Some(mirror), ..record.clone() };
        book.put(&Record::Volume(mirrored.clone())).await?;
        let begun = self.begin_mirror(host, (group, &record)).await;
        if let Err(error) = begun {
            // It is as it was. The copy there waits, empty, until it is deleted.
            book.put(&Record::Volume(record)).await?;
            return Err(error);
        }
        self.write().put_volume(mirrored);
        drop(book);
        self.tell_seat(entry.volume, Event::Command(Command::Found))?;
        self.wait_for(&entry, FOUND_WITHIN, |view| view.serves).await
    }

    async fn begin_mirror(
        &self,
        host: &Arc<MirrorHost>,
        (group, record): (GroupId, &VolumeRecord),
    ) -> Result<(), CatalogueError> {
        let volume = VolumeId(record.id);
        let (_, shard) = self.shard_of(volume);
        let ids = (group, volume);
        let settings =
            host.attach(ids, record.size_bytes, shard.clone()).map_err(|error| refused(error.to_string()))?;
        ask::begin_mirror(shard, volume, settings).await?.map_err(CatalogueError::Volume)?;
        host.route(ids, shard.clone());
        Ok(())
    }

    /// The record of a volume that is to be mirrored; refuses what cannot be yet, or not to there.
    async fn to_be_mirrored(
        &self,
        host: &MirrorHost,
        (entry, peer): (&Entry, SiteId),
    ) -> Result<VolumeRecord, CatalogueError> {
        let record = self.read().volume(entry.volume.0).cloned().ok_or_else(|| refused("the volume has no record"))?;
        let name = record.name.as_str();
        if peer != host.peer() {
            return Err(refused(format!("site {peer} is not the other one: that is site {}", host.peer())));
        }
        if record.mirror.is_some() {
            return Err(refused(format!("volume {name} is mirrored already")));
        }
        if !ids_of(host.site()).contains(&record.id) {
            let detail = "it was made before this pool was told its site, and what is made at the other one may have the \
                          same numbers: make a new volume, copy it there, and mirror that";
            return Err(refused(format!("volume {name} cannot be mirrored: {detail}")));
        }
        let has_snapshots = !self.read().snapshots_with(record.id).is_empty();
        if record.parent.is_some() || record.line.is_some() || record.history.is_some() || has_snapshots {
            let detail =
                "volumes that began as others, were rolled back, or have snapshots or history are not mirrored yet";
            return Err(refused(format!(
                "volume {name} cannot be mirrored: {detail}; copy it to a new volume, and mirror that"
            )));
        }
        let known = ask::known(&self.store, VolumeId(record.id), record.size_bytes).await?;
        if !known.loans.is_empty() {
            let detail = "some of it was copied within the pool, and what is shared is not mirrored yet: copy it to a new volume by \
                          reading and writing, and mirror that";
            return Err(refused(format!("volume {name} cannot be mirrored: {detail}")));
        }
        if !is_whole(&known.segments) {
            let detail = "its log does not go back to its beginning any more, and a copy of what it holds is not made by the \
                          mirror yet: make a new volume, mirror that, and copy it there";
            return Err(refused(format!("volume {name} cannot be mirrored: {detail}")));
        }
        if !host.is_up() {
            return Err(refused("there is no link to the other site: see the log for what keeps it down"));
        }
        Ok(record)
    }

    /// Holds a copy of a volume of the other site, empty at first.
    async fn hold_copy(&self, group: GroupId, volume: Enrolment) -> Result<(), CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let host = self.mirror_host()?;
        let Enrolment { volume, name, class, created_bytes, created_ms } = volume;
        let id = volume.0;
        let mirror = MirrorRecord { group: group.0, peer: host.peer().0, is_copy: true };
        if let Some(there) = self.read().volume(id) {
            let is_it = there.mirror == Some(mirror) && there.name == name && there.size_bytes == created_bytes;
            let other = || {
                format!("volume {} has its number there, or is a copy of before: delete that first, there", there.name)
            };
            return if is_it { Ok(()) } else { Err(refused(other())) };
        }
        if !ids_of(host.peer()).contains(&id) {
            return Err(refused(format!("number {id} is none that site {} gives out", host.peer())));
        }
        let (class, policy) = self.read().class_named(&class)?;
        let tenant = self.admit(&name, Usage::volume(created_bytes))?;
        self.refuse_if_taken(&name)?;
        let record = VolumeRecord {
            id,
            name: name.clone(),
            tenant: tenant.0,
            size_bytes: created_bytes,
            created_ms,
            state: VolumeState::Live,
            parent: None,
            line: None,
            image: None,
            history: None,
            qos: policy.qos,
            metered: Metered::default(),
            class: class.0,
            meter_changes: Vec::new(),
            mirror: Some(mirror),
        };
        // Says first, in the catalogue's head, that there are records which an older program must not read.
        book.take_ids(1).await?;
        let (shard_number, shard) = self.shard_of(volume);
        let ids = (group, volume);
        let settings = host.attach(ids, created_bytes, shard.clone()).map_err(|error| refused(error.to_string()))?;
        book.put(&Record::Volume(record.clone())).await?;
        let mut volume = Volume::open(self.config, fresh(volume, created_bytes));
        volume.freeze();
        self.serve_volume(volume, (tenant, record.qos), Some(Box::new(settings)))?;
        host.route(ids, shard.clone());
        let entry = Entry::of(&record, shard_number);
        tracing::info!(name, id, size_bytes = created_bytes, "holds a copy of a volume of the other site");
        self.put(record, entry);
        self.show_by_default(&mut book).await;
        Ok(())
    }

    /// How a mirrored volume is at this site.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`], [`CatalogueError::NotMirrored`].
    pub async fn mirror_view(&self, name: &str) -> Result<MirrorView, CatalogueError> {
        let entry = self.show_mirrored(name)?;
        self.view_of(&entry).await
    }

    /// Has `to` be the primary of a volume from now on, without a write lost or refused.
    ///
    /// # Errors
    /// [`CatalogueError::Mirror`] says why it is not.
    pub async fn move_volume(&self, name: &str, to: SiteId) -> Result<MirrorView, CatalogueError> {
        let entry = self.show_mirrored(name)?;
        let view = self.view_of(&entry).await?;
        let record = view.record.ok_or_else(|| refused("the witness has told no record of it yet: try again"))?;
        if ![view.site, view.peer].contains(&to) {
            return Err(refused(format!("site {to} has no copy of it: sites {} and {} do", view.site, view.peer)));
        }
        if record.primary == to || is_trial() {
            return Ok(view);
        }
        if record.primary != view.site {
            return Err(refused(format!("site {} leads: say it there", record.primary)));
        }
        if record.partner.is_none() {
            return Err(refused("the other site is not in sync: aljibe why tells what it lacks"));
        }
        let has_moved = |view: &MirrorView| view.record.is_some_and(|record| record.primary == to);
        let by = Instant::now() + COMMAND_PATIENCE;
        loop {
            let view = self.view_of(&entry).await?;
            if has_moved(&view) {
                return Ok(view);
            }
            // Nothing is served while the other site makes the end of the log durable: the less there is of that, the better.
            ask::submit(self.shard_of(entry.volume).1, entry.volume, Request::Flush).await?;
            self.tell_seat(entry.volume, Event::Command(Command::Switch))?;
            let tried = self.wait_for(&entry, SWITCH_WITHIN, has_moved).await;
            if tried.is_ok() || Instant::now() >= by {
                return tried;
            }
        }
    }

    /// Makes this site the primary of a volume, whatever the other one may hold that this one does not.
    ///
    /// # Errors
    /// [`CatalogueError::Mirror`] says why it is not.
    pub async fn fail_over(&self, name: &str) -> Result<MirrorView, CatalogueError> {
        let entry = self.show_mirrored(name)?;
        let view = self.view_of(&entry).await?;
        if view.serves || is_trial() {
            return Ok(view);
        }
        self.tell_seat(entry.volume, Event::Command(Command::Force))?;
        self.wait_for(&entry, COMMAND_PATIENCE, |view| view.serves).await
    }

    /// Ends the mirroring of a volume at this site, which has it for itself from now on. It has to lead it alone: no other site may come to
    /// lead it by itself.
    ///
    /// # Errors
    /// [`CatalogueError::NotMirrored`]; [`CatalogueError::InUse`] while clients are attached; [`CatalogueError::Mirror`] where another site
    /// could come to lead it.
    pub async fn end_mirror(&self, name: &str) -> Result<(), CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = self.show_mirrored(name)?;
        let host = self.mirror_host()?;
        if is_trial() {
            return self.refuse_if_attached(name, false);
        }
        let vacant = self.vacate(name, false)?;
        let record = self.read().volume(entry.volume.0).cloned().ok_or_else(|| refused("the volume has no record"))?;
        let (_, shard) = self.shard_of(entry.volume);
        if !ask::retire_seat(shard, entry.volume, Retiring::Leader).await? {
            let detail = "this site does not lead it alone, so that the other one could come to lead it: if that has a copy, delete the copy \
                          there (volume delete) and wait until aljibe why tells that this one leads alone; if this one does not lead, and \
                          the other one is lost for good, say site failover here first";
            return Err(refused(format!("the mirroring of volume {name} cannot be ended now: {detail}")));
        }
        let _ = ask::close(shard, entry.volume).await?;
        let plain = VolumeRecord { mirror: None, ..record.clone() };
        let put = book.put(&Record::Volume(plain.clone())).await;
        let reopened = host.open_plain(entry.volume, record.size_bytes).await;
        match (put, reopened) {
            (Ok(()), Ok(volume)) => {
                self.serve_volume(volume, (entry.tenant, record.qos), None)?;
                self.write().put_volume(plain);
                self.forget_promise(&record);
                drop(vacant);
                tracing::info!(name, "a volume is not mirrored any more: this site has it for itself");
                Ok(())
            }
            (put, reopened) => {
                let detail = reopened.err().unwrap_or_else(|| "its record cannot be written".to_owned());
                self.write().set_aside(name, &format!("the end of its mirroring failed: {detail}"));
                drop(vacant);
                put.and_then(|()| Err(refused(format!("volume {name} is closed until the next start: {detail}"))))
            }
        }
    }

    /// Before a volume is deleted: where it is mirrored, this site may not come to lead it any more.
    ///
    /// # Errors
    /// [`CatalogueError::Mirror`] where this site leads, or may.
    pub(super) async fn retire_copy(&self, entry: &Entry) -> Result<(), CatalogueError> {
        if !self.read().is_mirrored(entry.volume.0) || entry.damage.is_some() {
            return Ok(());
        }
        if ask::retire_seat(self.shard_of(entry.volume).1, entry.volume, Retiring::Copy).await? {
            return Ok(());
        }
        let detail = "this site leads it, or may come to: a copy is deleted at the site that does not lead; where this one is to be the last, \
                      end the mirroring first (volume unmirror)";
        Err(refused(format!("volume {} is mirrored, and {detail}", entry.name)))
    }

    /// What was promised in a mirror that has ended counts no more.
    pub(super) fn forget_promise(&self, record: &VolumeRecord) {
        if let Some((host, mirror)) = self.mirror.as_ref().zip(record.mirror) {
            host.forget(GroupId(mirror.group));
        }
    }

    /// Every mirrored volume by its name, with how it is at this site.
    ///
    /// # Errors
    /// [`CatalogueError::Ended`].
    pub async fn mirrors(&self) -> Result<Vec<(String, MirrorView)>, CatalogueError> {
        let all: Vec<Entry> = {
            let shelf = self.read();
            let is_mirrored = |entry: &&Entry| shelf.is_mirrored(entry.volume.0);
            shelf.names.values().map(|kept| &kept.entry).filter(is_mirrored).cloned().collect()
        };
        let mut views = Vec::with_capacity(all.len());
        for entry in all {
            if let Some((damage, host)) = entry.damage.clone().zip(self.mirror.as_ref()) {
                views.push((entry.name, MirrorView::not_served((host.site(), host.peer()), damage)));
                continue;
            }
            // One that begins to be mirrored has no seat yet.
            if let Some(view) = ask::mirror_view(self.shard_of(entry.volume).1, entry.volume).await? {
                views.push((entry.name, view));
            }
        }
        Ok(views)
    }

    /// Before this site stops: cuts clients off, and has the other site lead what it can.
    pub(crate) async fn hand_over(&self) {
        if self.mirror.is_none() {
            return;
        }
        let handed = tokio::time::timeout(HAND_OVER_WITHIN, async {
            for (name, view) in self.mirrors().await? {
                let is_led = |view: &MirrorView| view.record.is_some_and(|record| record.primary == view.site);
                let is_there = view.is_link_up && view.record.is_some_and(|record| record.partner.is_some());
                if !is_led(&view) || !is_there {
                    continue;
                }
                let entry = self.show(&name)?;
                let _ = ask::detach(self.shard_of(entry.volume).1, entry.volume).await?;
                self.tell_seat(entry.volume, Event::Command(Command::Switch))?;
                if self.wait_for(&entry, SWITCH_WITHIN, |view| !is_led(view)).await.is_err() {
                    tracing::info!(name, "the other site does not lead yet: it takes over when this one has stopped");
                }
            }
            Ok::<(), CatalogueError>(())
        });
        if !matches!(handed.await, Ok(Ok(()))) {
            tracing::warn!("not all that the other site could lead was handed over before the stop");
        }
    }

    fn show_mirrored(&self, name: &str) -> Result<Entry, CatalogueError> {
        let entry = self.show_served(name)?;
        let is_mirrored = self.read().is_mirrored(entry.volume.0);
        if is_mirrored { Ok(entry) } else { Err(CatalogueError::NotMirrored { name: name.to_owned() }) }
    }

    /// Refuses what is not done to volumes that are mirrored.
    pub(super) fn refuse_if_mirrored(&self, volume: VolumeId, what: &str) -> Result<(), CatalogueError> {
        if !self.read().is_mirrored(volume.0) {
            return Ok(());
        }
        Err(refused(format!(
            "{what} a volume that is mirrored cannot be had yet: end the mirroring first (volume unmirror)"
        )))
    }

    async fn view_of(&self, entry: &Entry) -> Result<MirrorView, CatalogueError> {
        let view = ask::mirror_view(self.shard_of(entry.volume).1, entry.volume).await?;
        view.ok_or_else(|| CatalogueError::NotMirrored { name: entry.name.clone() })
    }

    /// Looks at a volume until it is as it is to be.
    async fn wait_for(
        &self,
        entry: &Entry,
        within: Duration,
        is_so: impl Fn(&MirrorView) -> bool,
    ) -> Result<MirrorView, CatalogueError> {
        let by = Instant::now() + within;
        loop {
            let view = self.view_of(entry).await?;
            if is_so(&view) {
                return Ok(view);
            }
            if Instant::now() >= by {
                let detail =
                    format!("it was not done within {within:?}, and this site {}: aljibe why tells more", view.role);
                return Err(refused(detail));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(super) fn tell_seat(&self, volume: VolumeId, event: Event) -> Result<(), CatalogueError> {
        let message = Box::new(MirrorMessage::Seat(Box::new(event)));
        let sent = self.shard_of(volume).1.send(Message::Mirror { volume, message });
        sent.map_err(|_| CatalogueError::Ended("a shard"))
    }

    fn mirror_host(&self) -> Result<&Arc<MirrorHost>, CatalogueError> {
        self.mirror.as_ref().ok_or_else(|| refused("this daemon is no site of a mirror: start it with --site"))
    }
}

/// Whether a log is there from its first operation on, as it was written.
fn is_whole(rows: &[SegmentRow]) -> bool {
    let mut next = Lsn(1);
    rows.iter().all(|row| {
        let is_next = row.first_lsn == next && row.own_slot().is_some();
        next = row.last_lsn.map_or(Lsn(u64::MAX), Lsn::next);
        is_next
    })
}

fn refused(detail: impl Into<String>) -> CatalogueError {
    CatalogueError::Mirror(detail.into())
}
