use super::super::VolumeQos;
use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn at(milliseconds: u64) -> Monotonic {
    Monotonic(1 << 40).plus(Duration::from_millis(milliseconds))
}

fn iops(rate: u64, burst: u64) -> QosLimits {
    QosLimits { iops: Some(Ceiling { rate, burst }), ..QosLimits::default() }
}

/// A gate with connections that always want to send; what passes is under way until it is answered.
struct World {
    gate: Gate,
    now: Monotonic,
    /// By key: where it stands, how large its requests are, where it waits, how many have passed.
    connections: Vec<(Standing, u64, Option<Queue>, u64)>,
    under_way: VecDeque<(Standing, u64)>,
    /// All is answered every so many turns.
    turns_per_answer: u64,
    turns: u64,
}

impl World {
    fn new(fair_shares: FairShares) -> Self {
        let (gate, now, under_way) = (Gate::new(fair_shares), at(0), VecDeque::new());
        Self { gate, now, connections: Vec::new(), under_way, turns_per_answer: 1, turns: 0 }
    }

    fn open(&mut self, tenant: u64, limits: QosLimits) -> Standing {
        let qos = VolumeQos { tenant: TenantId(tenant), limits, ..VolumeQos::default() };
        self.gate.open(self.now, qos)
    }

    fn connect(&mut self, standing: Standing, bytes: u64) {
        self.connections.push((standing, bytes, None, 0));
    }

    /// A connection sends until it has to wait, or has had its share of a turn.
    fn send(&mut self, key: usize) {
        for _ in 0..16 {
            let (standing, bytes, held, passed) = &mut self.connections[key];
            assert_eq!(*held, None);
            match self.gate.ask(self.now, *standing, Ask { key, bytes: *bytes }) {
                Ok(()) => {
                    *passed += 1;
                    self.gate.begin_work(self.now, *standing, work_of(*bytes));
                    self.under_way.push_back((*standing, work_of(*bytes)));
                }
                Err(queue) => {
                    *held = Some(queue);
                    return;
                }
            }
        }
    }

    fn answer(&mut self, count: usize) {
        for (standing, work) in self.under_way.drain(..count) {
            self.gate.end_work(self.now, standing, work);
        }
    }

    /// One turn: whoever does not wait sends, whoever is called tries again; then all is answered.
    fn turn(&mut self) {
        for key in 0..self.connections.len() {
            if self.connections[key].2.is_none() {
                self.send(key);
            }
        }
        for _ in 0..64 {
            let Some(key) = self.gate.call(self.now) else { break };
            self.connections[key].2 = None;
            self.send(key);
        }
        self.turns += 1;
        if self.turns.is_multiple_of(self.turns_per_answer) {
            self.answer(self.under_way.len());
        }
    }

    fn run_for(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.turn();
            self.now = self.now.plus(Duration::from_millis(1));
        }
    }

    fn passed(&self) -> Vec<u64> {
        self.connections.iter().map(|connection| connection.3).collect()
    }
}

/// P8. A volume gets what its ceiling lets through, to the request, however many connections ask, and these get the same.
#[test]
fn connections_of_a_volume_share_its_ceiling() {
    let mut world = World::new(FairShares::Tenants);
    let volume = world.open(1, iops(1000, 100));
    (0..4).for_each(|_| world.connect(volume, 4096));
    world.run_for(2000);
    let passed = world.passed();
    assert_eq!(passed.iter().sum::<u64>(), 100 + 1999);
    assert!(passed.iter().all(|passed| (480..=580).contains(passed)), "{passed:?}");
    let status = world.gate.status(world.now, volume);
    assert!(status.throttled_requests > 1900 && status.throttled_ns > 7 * 1_000_000_000, "{status:?}");
}

/// P8. A tenant's ceiling holds all its volumes together, and nobody else's.
#[test]
fn volumes_of_a_tenant_share_its_ceiling() {
    let mut world = World::new(FairShares::Off);
    let volumes =
        [world.open(1, QosLimits::default()), world.open(1, iops(100, 10)), world.open(2, QosLimits::default())];
    world.gate.set_tenant(world.now, TenantId(1), (iops(1000, 100), Credits::default()));
    volumes.iter().for_each(|volume| world.connect(*volume, 4096));
    world.run_for(1000);
    let passed = world.passed();
    assert_eq!(passed[0] + passed[1], 100 + 999);
    assert!((90..=110).contains(&passed[1]), "its own ceiling, too: {passed:?}");
    assert_eq!(passed[2], 16 * 1000, "nothing holds the other tenant");
}

/// P8. Bytes and operations are held by their own ceilings, and large operations count as several where that is asked for.
#[test]
fn bytes_and_operations_have_ceilings_of_their_own() {
    let bandwidth = QosLimits { bandwidth: Some(Ceiling { rate: 10 * MIB, burst: MIB }), ..QosLimits::default() };
    let sized = QosLimits { operation_bytes: Some(256 << 10), ..iops(400, 40) };
    for (limits, expected) in [(bandwidth, 10), (sized, 110)] {
        let mut world = World::new(FairShares::Off);
        let volume = world.open(1, limits);
        world.connect(volume, MIB);
        world.run_for(1000);
        assert!(world.passed()[0].abs_diff(expected) <= 1, "{:?} of {expected}", world.passed());
    }
}

/// P8. A change holds from the next request on: a ceiling that is lifted lets those go who wait.
#[test]
fn a_ceiling_is_changed_while_requests_wait() {
    let mut world = World::new(FairShares::Tenants);
    let volume = world.open(1, iops(10, 10));
    world.connect(volume, 4096);
    world.run_for(10);
    assert_eq!(world.passed(), [10]);
    world.gate.set_volume(world.now, volume, iops(1000, 100));
    world.run_for(100);
    assert!((109..=111).contains(&world.passed()[0]), "{:?}", world.passed());
    world.gate.set_volume(world.now, volume, QosLimits::default());
    world.run_for(10);
    assert!(world.passed()[0] >= 250, "{:?}", world.passed());
}

/// P8. While a quiet tenant is there, one that floods has a little under way; alone it has all that it wants.
#[test]
fn a_flood_is_kept_short_while_somebody_else_is_there() {
    let mut world = World::new(FairShares::Tenants);
    let (flood, quiet) = (world.open(1, QosLimits::default()), world.open(2, QosLimits::default()));
    (0..16).for_each(|_| world.connect(flood, 4096));
    world.turn();
    assert_eq!(world.passed().iter().sum::<u64>(), 16 * 16, "alone");
    let ask = Ask { key: 99, bytes: 4096 };
    world.gate.ask(world.now, quiet, ask).unwrap();
    let before = world.passed().iter().sum::<u64>();
    for key in 0..16 {
        world.send(key);
    }
    let under_way = world.passed().iter().sum::<u64>() - before;
    assert_eq!(under_way, WINDOW / work_of(4096), "the other one has nothing under way");
    world.answer(world.under_way.len());
    world.gate.ask(world.now, quiet, ask).unwrap();
    // It goes on after each answer, and without a bound once the other has gone.
    world.gate.begin_work(world.now, quiet, work_of(4096));
    world.turn();
    assert!(world.passed().iter().sum::<u64>() > before + under_way);
    world.gate.end_work(world.now, quiet, work_of(4096));
    world.now = world.now.plus(ACTIVE_FOR * 2);
    world.turn();
    let before = world.passed().iter().sum::<u64>();
    world.turn();
    assert_eq!(world.passed().iter().sum::<u64>() - before, 16 * 16);
    assert!(world.gate.status(world.now, flood).shared_requests > 0);
}

/// P8. Large requests go one at a time beside somebody else, whatever the window is.
#[test]
fn a_request_that_is_larger_than_the_share_goes_alone() {
    let mut world = World::new(FairShares::Volumes);
    let (flood, quiet) = (world.open(1, QosLimits::default()), world.open(1, QosLimits::default()));
    world.connect(flood, 8 * MIB);
    world.gate.ask(world.now, quiet, Ask { key: 99, bytes: 0 }).unwrap();
    world.send(0);
    assert_eq!((world.passed(), world.connections[0].2.is_some()), (vec![1], true));
}

/// P8. Behind a large request a sharer of which another one waits rests for as long as that took with its reply, when somebody
/// else is there, who passes.
#[test]
fn a_sharer_rests_behind_a_large_request() {
    let mut world = World::new(FairShares::Volumes);
    let (flood, quiet) = (world.open(1, QosLimits::default()), world.open(1, QosLimits::default()));
    let gate = &mut world.gate;
    let (large, small) = (Ask { key: 1, bytes: MIB }, Ask { key: 2, bytes: 4096 });
    gate.ask(at(0), quiet, small).unwrap();
    gate.ask(at(0), flood, large).unwrap();
    gate.begin_work(at(0), flood, work_of(MIB));
    gate.ask(at(1), flood, large).unwrap_err();
    gate.end_work(at(4), flood, work_of(MIB));
    assert_eq!(gate.call(at(4)), None, "what its reply takes is not known yet");
    for now in [5, 9] {
        assert_eq!(gate.call(at(now)), None, "{now}");
        gate.ask(at(now), quiet, small).unwrap();
    }
    assert_eq!(gate.opens_at(), Some(at(10)));
    assert_eq!(gate.call(at(10)), Some(1));
    gate.ask(at(10), flood, large).unwrap();
    // Who asks for one after the other needs no rest, however large they are.
    gate.begin_work(at(10), flood, work_of(MIB));
    gate.end_work(at(14), flood, work_of(MIB));
    gate.ask(at(14), flood, large).unwrap();
}

/// P8. Shares are as large as weights say.
#[test]
fn weights_divide_the_window() {
    let mut world = World::new(FairShares::Tenants);
    let volumes = [1, 2].map(|tenant| world.open(tenant, QosLimits::default()));
    world.gate.set_weight(TenantId(2), 3);
    volumes.iter().for_each(|volume| (0..8).for_each(|_| world.connect(*volume, 4096)));
    world.run_for(10);
    let before = world.passed();
    world.run_for(100);
    let of = |keys: std::ops::Range<usize>| keys.map(|key| world.passed()[key] - before[key]).sum::<u64>();
    let (light, heavy) = (of(0..8), of(8..16));
    assert!(heavy * 10 > light * 25 && heavy * 10 < light * 35, "{light} and {heavy}");
}

/// P8. Of two ceilings that could each use up a turn's calls neither has more of them, and one that opens later has its turn.
#[test]
fn ceilings_that_are_always_open_take_turns() {
    let mut world = World::new(FairShares::Off);
    let volumes = [iops(1_000_000, 100_000), iops(1_000_000, 100_000), iops(10, 1)].map(|limits| world.open(1, limits));
    (0..200).for_each(|key| world.connect(volumes[key / 100], 0));
    world.connect(volumes[2], 0);
    world.run_for(200);
    let before = world.passed();
    world.run_for(1000);
    let of = |keys: std::ops::Range<usize>| keys.map(|key| world.passed()[key] - before[key]).sum::<u64>();
    let (one, other, slow) = (of(0..100), of(100..200), of(200..201));
    assert!(one.abs_diff(other) <= one / 10, "{one} and {other}");
    assert!((9..=11).contains(&slow), "{slow}");
}

/// P8. Those who waited for a ceiling that is lifted do not take turns any more.
#[test]
fn a_ceiling_that_is_lifted_leaves_nothing_behind() {
    let mut world = World::new(FairShares::Tenants);
    let volume = world.open(1, iops(10, 1));
    (0..100).for_each(|_| world.connect(volume, 0));
    world.run_for(10);
    world.gate.set_volume(world.now, volume, QosLimits::default());
    world.run_for(2);
    let before = world.passed().iter().sum::<u64>();
    world.turn();
    assert_eq!(world.passed().iter().sum::<u64>() - before, 100 * 16);
}

proptest! {
    /// P8. Whatever holds them and however that changes, nobody waits for ever, and a ceiling that stays is never passed.
    #[test]
    fn nobody_waits_for_ever(
        volumes in prop::collection::vec((0_u64..3, prop::option::of((10_u64..5000, 1_u64..500)), 1_usize..4), 1..6),
        tenant in prop::option::of((10_u64..5000, 1_u64..500)),
        sizes in prop::collection::vec(0_u64..2 * MIB, 1..5),
        changes in prop::collection::vec((0_usize..6, prop::option::of((10_u64..5000, 1_u64..500)), 1_u64..40), 0..6),
        turns_per_answer in 1_u64..5,
    ) {
        let limits = |ceiling: Option<(u64, u64)>| ceiling.map_or_else(QosLimits::default, |(rate, burst)| iops(rate, burst));
        let mut world = World::new(FairShares::Tenants);
        world.turns_per_answer = turns_per_answer;
        let ceiling = limits(tenant);
        world.gate.set_tenant(world.now, TenantId(1), (ceiling, Credits::default()));
        let mut sizes = sizes.into_iter().cycle();
        let mut standings = Vec::new();
        for (tenant, ceiling, connections) in volumes {
            let standing = world.open(tenant, limits(ceiling));
            standings.push((tenant, standing));
            (0..connections).for_each(|_| world.connect(standing, sizes.next().unwrap()));
        }
        for (volume, ceiling, pause) in changes {
            if let Some((_, standing)) = standings.get(volume) {
                world.gate.set_volume(world.now, *standing, limits(ceiling));
            }
            world.run_for(pause);
        }
        let before = world.passed();
        // The slowest brings a request each 100 ms, and of a tenant's too, for 18 connections at most.
        world.run_for(4000);
        let passed = world.passed();
        prop_assert!(passed.iter().zip(&before).all(|(now, before)| now > before), "{:?} {:?}", before, passed);
        let held = standings.iter().filter(|(tenant, _)| *tenant == 1).map(|(_, standing)| *standing);
        let held: Vec<Standing> = held.collect();
        let of_tenant: u64 = world.connections.iter().filter(|c| held.contains(&c.0)).map(|c| c.3).sum();
        if let Some((rate, burst)) = tenant {
            let elapsed = nanoseconds(world.now.since(at(0)));
            prop_assert!(of_tenant <= burst + rate * elapsed / 1_000_000_000 + 1);
        }
    }
}
