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
        pair.primary.give(Event::Role(Role::Primary { epoch: FIRST }));
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
        let committed = self.primary.volume.status().applied_lsn;
        let before = self.secondary.volume.status().applied_lsn;
        let (batches, syncs) = (std::mem::take(&mut self.primary.sent), std::mem::take(&mut self.primary.asked_syncs));
        let told = self.secondary.told_primary.take();
        let is_news = !batches.is_empty() || !syncs.is_empty() || told.is_some() || committed > before;
        for buffers in batches {
            self.secondary.give(Event::Replicated { buffers });
            self.secondary.run();
        }
        syncs.into_iter().for_each(|lsn| self.secondary.give(Event::MakeDurable { lsn }));
        self.secondary.give(Event::Committed { lsn: committed });
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
        (pair.secondary.fell_out, pair.secondary.told_primary)
    };
    let has_two = PeerLog { appended: Lsn(1), durable: Lsn::ZERO };
    assert_eq!(sent(|_| {}), (vec![], Some(has_two)));
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
        pair.secondary.give(Event::Role(Role::Primary { epoch: Epoch(round + 1) }));
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
