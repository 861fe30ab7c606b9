//! One volume at two sites, each with a driver of its own, and what goes between them carried by hand.

use super::*;

const FIRST: Epoch = Epoch(1);
const SECOND: Epoch = Epoch(2);

struct Pair {
    primary: Driver,
    secondary: Driver,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self { primary: Driver::new(64), secondary: Driver::new(64) };
        // What the one leases by itself is never what the other one does.
        pair.secondary.next_segment = 1_000_000;
        pair.secondary.volume.freeze();
        pair.primary.volume.freeze();
        pair.secondary.give(Event::Role(Role::Secondary { epoch: FIRST }));
        pair.primary.give(Event::Role(Role::Primary { epoch: FIRST, peer: PeerLog::SAME }));
        pair.run();
        pair
    }

    /// Carries everything out, and everything to the other site.
    fn run(&mut self) {
        loop {
            self.primary.run();
            self.secondary.run();
            if !self.carry() {
                return;
            }
        }
    }

    /// Carries what there is to the other site, once.
    fn carry(&mut self) -> bool {
        let counted = self.primary.volume.counted_end();
        let committed = counted.lsn;
        let stable = self.primary.volume.stable_lsn();
        let before = self.secondary.volume.status().applied_lsn;
        let (batches, syncs) = (std::mem::take(&mut self.primary.sent), std::mem::take(&mut self.primary.asked_syncs));
        let told = self.secondary.told_primary.take();
        let is_news = !batches.is_empty() || !syncs.is_empty() || told.is_some() || committed > before;
        for buffers in batches {
            self.secondary.give(Event::Replicated { buffers });
            self.secondary.run();
        }
        syncs.into_iter().for_each(|lsn| self.secondary.give(Event::MakeDurable { lsn }));
        let log = PeerLog { segment: counted.segment, appended: committed, durable: stable };
        self.secondary.give(Event::Committed(log));
        told.into_iter().for_each(|log| self.primary.give(Event::PeerHas(log)));
        is_news
    }

    fn done(&mut self, request: Request) -> Result<(), ErrorKind> {
        let id = self.primary.ask(request);
        self.run();
        self.primary.replies.remove(&id).expect("answered").map(|_| ()).map_err(|error| error.kind)
    }

    /// The secondary becomes primary, alone: the other site is gone.
    fn fail_over(mut self) -> Driver {
        self.secondary.give(Event::Role(Role::Alone { epoch: SECOND }));
        self.secondary.run();
        self.secondary
    }
}

/// P1. A write is answered once the peer has it, and is not read before.
#[test]
fn a_write_waits_for_the_peer() {
    let mut pair = Pair::new();
    let id = pair.primary.ask(write(0, &[7; 4096], false));
    pair.primary.run();
    assert!(!pair.primary.replies.contains_key(&id));
    assert_eq!(pair.primary.read(0, 4096).unwrap(), [0; 4096]);
    pair.run();
    assert!(pair.primary.replies[&id].is_ok());
    assert_eq!(pair.primary.read(0, 4096).unwrap(), [7; 4096]);
    assert!(pair.primary.volume.is_idle() && pair.secondary.volume.is_idle());
}

/// P1. A flush is answered once it is durable at both sites, and costs each of them one sync.
#[test]
fn a_flush_waits_for_both_sites() {
    let mut pair = Pair::new();
    pair.done(write(0, &[7; 4096], false)).unwrap();
    let before = (pair.primary.synced, pair.secondary.synced);
    let flush = pair.primary.ask(Request::Flush);
    pair.primary.run();
    assert!(!pair.primary.replies.contains_key(&flush));
    pair.run();
    assert!(pair.primary.replies[&flush].is_ok());
    assert_eq!((pair.primary.synced, pair.secondary.synced), (before.0 + 1, before.1 + 1));
    pair.done(write(4096, &[8; 4096], true)).unwrap();
    assert_eq!(pair.secondary.volume.status().durable_lsn, pair.primary.volume.status().durable_lsn);
}

/// P1. What was acknowledged is there when the other site takes over, through many segments.
#[test]
fn what_was_acknowledged_is_at_the_other_site() {
    let mut pair = Pair::new();
    for number in 0..60_u64 {
        pair.done(write(number * 8192, &[number as u8 + 1; 8192], number % 7 == 0)).unwrap();
        if number % 10 == 9 {
            pair.done(Request::Trim { range: range(number * 8192, 4096), fua: false }).unwrap();
        }
    }
    pair.done(write(512, &[99; 1024], false)).unwrap();
    pair.done(Request::Resize { size_bytes: 8 * MIB, discard_tail: false }).unwrap();
    assert!(pair.primary.volume.status().segments > 5);
    let expected = pair.primary.read(0, 4 * MIB).unwrap();
    let mut survivor = pair.fail_over();
    assert_eq!(survivor.fell_out, []);
    assert_eq!(survivor.volume.size_bytes(), 8 * MIB);
    assert!(survivor.read(0, 4 * MIB).unwrap() == expected);
    survivor.write(0, &[3; 4096]).unwrap();
    assert_eq!(survivor.read(0, 4096).unwrap(), [3; 4096]);
}

/// P4. What is written after a failover is in segments of the new epoch.
#[test]
fn a_new_epoch_begins_a_segment() {
    let mut pair = Pair::new();
    pair.done(write(0, &[7; 4096], false)).unwrap();
    let before: Vec<SegmentId> = pair.secondary.volume.segments.keys().copied().collect();
    let mut survivor = pair.fail_over();
    survivor.write(0, &[8; 4096]).unwrap();
    let open = survivor.volume.log.open.as_ref().unwrap();
    assert!(before.iter().all(|segment| *segment < open.segment));
    let at = survivor.volume.config.geometry.block_offset(open.slot, 1) as usize;
    assert_eq!(decode_batch(&survivor.pool[at..]).unwrap().0.epoch, SECOND);
}

/// P4. A secondary serves nobody, and a volume without a role neither.
#[test]
fn only_the_primary_serves() {
    let mut pair = Pair::new();
    assert_eq!(pair.secondary.write(0, &[7; 4096]), Err(ErrorKind::Fenced));
    assert_eq!(pair.secondary.read(0, 4096), Err(ErrorKind::Fenced));
    let mut frozen = Driver::new(8);
    frozen.volume.freeze();
    assert_eq!(frozen.read(0, 4096), Err(ErrorKind::Fenced));
}

/// P1. A peer that is lost keeps writes waiting until the role says that it counts no more.
#[test]
fn a_lost_peer_is_waited_for_until_the_role_is_decided() {
    let mut pair = Pair::new();
    let ids: Vec<u64> = (0..20).map(|n| pair.primary.ask(write(n * 4096, &[n as u8 + 1; 4096], n == 5))).collect();
    pair.primary.run();
    assert!(ids.iter().all(|id| !pair.primary.replies.contains_key(id)));
    pair.primary.give(Event::Role(Role::Alone { epoch: SECOND }));
    pair.primary.run();
    assert!(ids.iter().all(|id| pair.primary.replies[id].is_ok()));
    assert_eq!(pair.primary.read(19 * 4096, 4096).unwrap(), [20; 4096]);
    assert!(pair.primary.volume.is_idle());
}

/// P1. What the primary's disk failed is appended elsewhere, and the secondary takes back what it had of it.
#[test]
fn what_the_primary_gives_up_is_cut_off() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    pair.primary.append_faults.push(DiskFault::Io);
    pair.done(write(4096, &[2; 4096], false)).unwrap();
    pair.done(write(8192, &[3; 4096], false)).unwrap();
    assert_eq!((pair.primary.volume.status().append_faults, pair.secondary.fell_out.as_slice()), (1, &[][..]));
    let mut survivor = pair.fail_over();
    assert_eq!(survivor.read(0, 12288).unwrap(), [[1; 4096], [2; 4096], [3; 4096]].concat());
}

/// P1. What the peer had of what was given up does not count for what comes in its place, however late it tells.
#[test]
fn an_ack_of_what_was_given_up_is_none_of_what_comes_in_its_place() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    pair.primary.append_faults.push(DiskFault::NoSpace);
    let failed = pair.primary.ask(write(4096, &[2; 4096], false));
    pair.primary.run();
    assert!(pair.primary.replies[&failed].is_err());
    let given_up = pair.primary.sent.pop_front().unwrap();
    pair.secondary.give(Event::Replicated { buffers: given_up });
    pair.secondary.run();
    let late = pair.secondary.told_primary.take().unwrap();
    let id = pair.primary.ask(write(8192, &[3; 4096], true));
    pair.primary.run();
    for log in [late, PeerLog { durable: late.appended, ..late }] {
        pair.primary.give(Event::PeerHas(log));
        pair.primary.run();
        assert!(!pair.primary.replies.contains_key(&id));
    }
    pair.run();
    assert!(pair.primary.replies[&id].is_ok());
    let mut survivor = pair.fail_over();
    assert_eq!(survivor.read(4096, 8192).unwrap(), [[0; 4096], [3; 4096]].concat());
}

/// P1. A sync that began before a cut says nothing of what is appended behind it.
#[test]
fn a_sync_before_a_cut_makes_nothing_durable_that_comes_after_it() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    pair.primary.append_faults.push(DiskFault::Io);
    pair.primary.ask(write(4096, &[2; 4096], false));
    pair.primary.run();
    let (given_up, again) = (pair.primary.sent.pop_front().unwrap(), pair.primary.sent.pop_front().unwrap());
    pair.secondary.give(Event::Replicated { buffers: given_up });
    pair.secondary.run();
    let end = pair.secondary.told_primary.take().unwrap().appended;
    pair.secondary.give(Event::MakeDurable { lsn: end });
    let at = pair.secondary.queue.iter().position(|action| matches!(action, Action::Sync { .. })).unwrap();
    let Action::Sync { id } = pair.secondary.queue.remove(at) else { unreachable!() };
    pair.secondary.give(Event::Replicated { buffers: again });
    pair.secondary.run();
    let told = pair.secondary.told_primary.take().unwrap();
    pair.secondary.give(Event::Synced { id, result: Ok(()) });
    let in_time = pair.secondary.volume.synced_lsn;
    assert!((told.appended, in_time) == (end, Lsn(end.0 - 1)), "{told:?}, {in_time}");
    pair.secondary.run();
    assert_eq!(pair.secondary.volume.synced_lsn, end);
}

/// P1. What a batch says to be durable is so at the secondary before it is appended there.
#[test]
fn a_batch_waits_for_what_it_says_to_be_durable() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    pair.done(Request::Flush).unwrap();
    pair.primary.give(Event::Role(Role::Alone { epoch: SECOND }));
    pair.primary.done(write(4096, &[2; 4096], false)).unwrap();
    assert_eq!(pair.secondary.synced, 1);
    pair.secondary.volume.synced_lsn = Lsn::ZERO;
    let wanted = (pair.primary.volume.segments(), pair.primary.volume.status().applied_lsn);
    assert!(wanted.0.len() == 2 && wanted.1 == Lsn(2));
    let open = pair.primary.volume.log.open.as_ref().unwrap();
    let at = pair.primary.volume.config.geometry.block_offset(open.slot, 1) as usize;
    assert_eq!(decode_batch(&pair.primary.pool[at..]).unwrap().0.durable_lsn, Lsn(1));
    pair.secondary.give(Event::Role(Role::Secondary { epoch: SECOND }));
    let buffers = [at..at + 4096, at + 4096..at + 8192].map(|range| Buffer::copy_of(&pair.primary.pool[range]));
    pair.secondary.give(Event::Replicated { buffers: buffers.into() });
    let is_append = |action: &Action| matches!(action, Action::Append { .. });
    assert!(!pair.secondary.queue.iter().any(is_append));
    pair.secondary.run();
    assert_eq!((pair.secondary.synced, pair.secondary.volume.end_of_log()), (2, Lsn(2)));
}

/// P1. A primary whose work is not all in its log does not follow: it would append that when it leads again.
#[test]
fn a_primary_with_work_under_way_does_not_follow() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    pair.primary.holds_fetches = true;
    pair.primary.ask(write(512, &[2; 512], false));
    pair.primary.run();
    pair.primary.give(Event::Role(Role::Secondary { epoch: SECOND }));
    pair.primary.run();
    assert_eq!(pair.primary.fell_out, [FellOut::NotAtRest]);
    let mut waiting = Pair::new();
    waiting.done(write(0, &[1; 4096], false)).unwrap();
    waiting.primary.ask(Request::Flush);
    waiting.primary.run();
    waiting.primary.give(Event::Role(Role::Secondary { epoch: SECOND }));
    waiting.primary.run();
    assert_eq!(waiting.primary.fell_out, [FellOut::NotAtRest]);
}

/// P1. What a new primary has durable, the peer has to say of itself.
#[test]
fn a_flush_of_a_new_primary_waits_for_its_peer() {
    let mut pair = Pair::new();
    pair.done(write(0, &[7; 4096], false)).unwrap();
    pair.primary.give(Event::Role(Role::Secondary { epoch: SECOND }));
    pair.secondary.give(Event::Role(Role::Primary { epoch: SECOND, peer: PeerLog::SAME }));
    std::mem::swap(&mut pair.primary, &mut pair.secondary);
    pair.primary.run();
    let flush = pair.primary.ask(Request::Flush);
    pair.primary.run();
    assert!(!pair.primary.replies.contains_key(&flush));
    pair.run();
    assert!(pair.primary.replies[&flush].is_ok());
}

/// P6. A secondary whose sync failed says so, and acknowledges nothing any more.
#[test]
fn a_poisoned_secondary_falls_out() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    pair.secondary.is_sync_failing = true;
    pair.primary.ask(Request::Flush);
    pair.run();
    assert_eq!(pair.secondary.fell_out, [FellOut::Disk]);
    pair.primary.ask(write(4096, &[2; 4096], false));
    pair.run();
    assert_eq!(pair.secondary.volume.end_of_log(), Lsn(1));
}

/// P1. A volume without a role stores and gives back nothing by what the end of its log says.
#[test]
fn a_frozen_volume_stores_nothing() {
    let mut driver = Driver::new(64);
    for number in 0..20 {
        driver.write(number * 8192, &[1; 8192]).unwrap();
    }
    driver.volume.freeze();
    driver.told.clear();
    for _ in 0..5 {
        driver.give(Event::Tick);
        driver.run();
    }
    assert_eq!((driver.told.len(), driver.settled.len()), (0, 0));
}

/// P2. A batch that was changed on its way is not taken, nor is one that leaves something out.
#[test]
fn a_secondary_takes_only_what_follows_and_is_whole() {
    let sent = |change: fn(&mut Vec<Buffer>)| {
        let mut pair = Pair::new();
        pair.primary.ask(write(0, &[1; 8192], false));
        pair.primary.run();
        let mut buffers = pair.primary.sent.pop_front().unwrap();
        change(&mut buffers);
        pair.secondary.give(Event::Replicated { buffers });
        pair.secondary.run();
        (pair.secondary.fell_out, pair.secondary.told_primary.map(|log| log.appended))
    };
    assert_eq!(sent(|_| {}), (vec![], Some(Lsn(1))));
    assert_eq!(sent(|buffers| buffers[1].as_mut_slice()[5000] ^= 1), (vec![FellOut::BadBatch], None));
    assert_eq!(sent(|buffers| buffers[0].as_mut_slice()[90] ^= 1), (vec![FellOut::BadBatch], None));
    assert_eq!(sent(|buffers| drop(buffers.pop())), (vec![FellOut::BadBatch], None));
    assert_eq!(sent(|buffers| buffers.push(Buffer::zeroed(4096))), (vec![FellOut::BadBatch], None));
    assert_eq!(sent(Vec::clear), (vec![FellOut::BadBatch], None));
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    for _ in 0..2 {
        pair.primary.ask(write(0, &[2; 4096], false));
        pair.primary.run();
    }
    let second = pair.primary.sent.pop_back().unwrap();
    pair.secondary.give(Event::Replicated { buffers: second });
    pair.secondary.run();
    assert_eq!(pair.secondary.fell_out, [FellOut::NotNext]);
}

/// P6. A secondary whose disk or pool fails says so, keeps what it has, and takes no more.
#[test]
fn a_secondary_that_cannot_go_on_says_so() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    pair.secondary.append_faults.push(DiskFault::Io);
    pair.primary.ask(write(4096, &[2; 4096], false));
    pair.run();
    assert_eq!(pair.secondary.fell_out, [FellOut::Disk]);
    let mut full = Pair::new();
    full.secondary.slots_left = 0;
    full.primary.ask(write(0, &[1; 4096], false));
    full.run();
    assert_eq!(full.secondary.fell_out, [FellOut::NoSlot]);
}

/// P1, P4. Roles change places while nothing is under way, and both logs stay the same.
#[test]
fn the_roles_change_places() {
    let mut pair = Pair::new();
    for round in 1..6_u64 {
        let byte = round as u8;
        pair.done(write(round * 4096, &[byte; 4096], false)).unwrap();
        pair.primary.give(Event::Role(Role::Secondary { epoch: Epoch(round + 1) }));
        pair.secondary.give(Event::Role(Role::Primary { epoch: Epoch(round + 1), peer: PeerLog::SAME }));
        pair.run();
        std::mem::swap(&mut pair.primary, &mut pair.secondary);
        pair.run();
        assert_eq!(pair.primary.read(round * 4096, 4096).unwrap(), [byte; 4096]);
    }
    assert_eq!((pair.primary.fell_out.as_slice(), pair.secondary.fell_out.as_slice()), (&[][..], &[][..]));
    let ids = |driver: &Driver| driver.volume.segments.keys().copied().collect::<Vec<_>>();
    assert_eq!(ids(&pair.primary), ids(&pair.secondary));
    assert_eq!(pair.primary.volume.log.chain, pair.secondary.volume.log.chain);
}

/// A role that is given while the peer lacks what has ended here.
fn lagging() -> PeerLog {
    PeerLog { segment: Some(SegmentId(2)), appended: Lsn(1), durable: Lsn(1) }
}

/// P1. A primary that is given an epoch, or its own anew, still waits for the peer.
#[test]
fn a_primary_that_stays_one_acknowledges_nothing_that_the_peer_lacks() {
    for epoch in [FIRST, SECOND] {
        let mut pair = Pair::new();
        pair.done(write(0, &[1; 4096], false)).unwrap();
        let id = pair.primary.ask(write(0, &[7; 4096], false));
        pair.primary.run();
        pair.primary.give(Event::Role(Role::Primary { epoch, peer: lagging() }));
        pair.primary.run();
        assert!(!pair.primary.replies.contains_key(&id));
        assert_eq!(pair.primary.read(0, 4096).unwrap(), [1; 4096]);
    }
}

/// P1. A secondary that leads shows nothing of its tail that its peer lacks.
#[test]
fn who_takes_over_with_a_peer_shows_what_both_have() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    pair.primary.ask(write(0, &[7; 4096], false));
    pair.primary.run();
    for buffers in std::mem::take(&mut pair.primary.sent) {
        pair.secondary.give(Event::Replicated { buffers });
        pair.secondary.run();
    }
    pair.secondary.give(Event::Role(Role::Primary { epoch: SECOND, peer: lagging() }));
    pair.secondary.run();
    assert_eq!(pair.secondary.read(0, 4096).unwrap(), [1; 4096]);
}

/// P1. A role that waits for appends does not outlive a newer one.
#[test]
fn the_newest_role_counts() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    pair.primary.ask(write(4096, &[2; 4096], false));
    pair.primary.run();
    pair.secondary.holds_appends = true;
    for buffers in std::mem::take(&mut pair.primary.sent) {
        pair.secondary.give(Event::Replicated { buffers });
        pair.secondary.run();
    }
    pair.secondary.give(Event::Role(Role::Alone { epoch: SECOND }));
    pair.secondary.give(Event::Role(Role::Secondary { epoch: Epoch(3) }));
    pair.secondary.holds_appends = false;
    pair.secondary.run();
    assert_eq!(pair.secondary.write(8192, &[9; 4096]), Err(ErrorKind::Fenced));
}

/// P6. A batch that is missing is noticed, though the next one says that it is durable.
#[test]
fn a_gap_is_noticed() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], true)).unwrap();
    pair.primary.ask(write(4096, &[2; 4096], true));
    pair.primary.run();
    // Lost with the link.
    pair.primary.sent.clear();
    pair.primary.give(Event::Role(Role::Alone { epoch: FIRST }));
    pair.primary.run();
    let peer = PeerLog { durable: Lsn(u64::MAX), ..PeerLog::SAME };
    pair.primary.give(Event::Role(Role::Primary { epoch: FIRST, peer }));
    pair.primary.ask(write(4096, &[6; 4096], true));
    pair.primary.run();
    for buffers in std::mem::take(&mut pair.primary.sent) {
        pair.secondary.give(Event::Replicated { buffers });
        pair.secondary.run();
    }
    assert_eq!(pair.secondary.fell_out, [FellOut::NotNext]);
}

/// P1. A log that was opened anew goes on in a new segment when it leads, in the same epoch too: behind its end there may be batches that
/// the peer has.
#[test]
fn who_was_opened_anew_leads_in_a_new_segment() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    let before = pair.primary.volume.end();
    pair.primary.volume.freeze();
    pair.primary.give(Event::Role(Role::Alone { epoch: FIRST }));
    pair.primary.run();
    pair.primary.done(write(4096, &[2; 4096], false)).unwrap();
    assert!(pair.primary.volume.end().segment > before.segment);
}

/// P1. What a power cut may take from the primary is not in the secondary's stored map: its log could not be cut of it.
#[test]
fn a_secondary_stores_what_is_durable_at_both_sites() {
    let mut pair = Pair::new();
    pair.primary.ask(write(0, &[1; 4096], false));
    pair.run();
    let end = pair.primary.volume.counted_end();
    let stored = |pair: &Pair| pair.secondary.volume.status().folded_to;
    for _ in 0..3 {
        pair.secondary.give(Event::Tick);
        pair.secondary.run();
    }
    assert_eq!((pair.secondary.volume.status().applied_lsn, stored(&pair)), (end.lsn, Lsn::ZERO));
    let log = PeerLog { segment: end.segment, appended: end.lsn, durable: end.lsn };
    pair.secondary.give(Event::Committed(log));
    pair.secondary.run();
    assert_eq!(stored(&pair), end.lsn);
}

/// P1. What counts is named with its segment: what the primary's disk failed, and it wrote again, is not counted as it was first.
#[test]
fn what_was_given_up_is_not_counted() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], false)).unwrap();
    pair.primary.append_faults.push(DiskFault::Io);
    pair.primary.ask(write(0, &[2; 4096], false));
    pair.primary.run();
    let given_up = pair.primary.sent.pop_front().unwrap();
    pair.secondary.give(Event::Replicated { buffers: given_up });
    pair.secondary.run();
    // The primary goes on alone, and tells what counts before the batch has come.
    pair.primary.give(Event::Role(Role::Alone { epoch: FIRST }));
    pair.primary.run();
    let (end, before) = (pair.primary.volume.counted_end(), pair.secondary.volume.status().applied_lsn);
    assert_eq!(end.lsn, pair.secondary.volume.end().lsn);
    pair.secondary.give(Event::Committed(PeerLog { segment: end.segment, appended: end.lsn, durable: Lsn::ZERO }));
    pair.secondary.run();
    assert_eq!(pair.secondary.volume.status().applied_lsn, before);
}

/// P6. A secondary that waits for what does not come is still as soon as it is told to be, and tells where it ends; what came later, and
/// what waited, is not there.
#[test]
fn a_secondary_is_still_when_it_is_told_to_be() {
    let mut pair = Pair::new();
    pair.done(write(0, &[1; 4096], true)).unwrap();
    let end = pair.secondary.volume.end();
    pair.secondary.holds_appends = true;
    pair.primary.ask(write(4096, &[2; 4096], false));
    pair.primary.run();
    let batch = pair.primary.sent.pop_front().unwrap();
    pair.secondary.give(Event::Replicated { buffers: batch });
    pair.secondary.run();
    pair.secondary.give(Event::Role(Role::Still));
    assert!(!pair.secondary.volume.is_still(), "an append is under way");
    pair.secondary.holds_appends = false;
    pair.secondary.run();
    assert!(pair.secondary.volume.is_still());
    assert!(pair.secondary.volume.end().lsn > end.lsn);
    pair.primary.ask(write(8192, &[3; 4096], false));
    pair.primary.run();
    let (late, at) = (pair.primary.sent.pop_front().unwrap(), pair.secondary.volume.end());
    pair.secondary.give(Event::Replicated { buffers: late });
    pair.secondary.run();
    assert_eq!((pair.secondary.volume.end(), pair.secondary.fell_out.as_slice()), (at, &[][..]));
}
