//! What one seed makes of a world: its shape, its clients, and what goes wrong.

use crate::oracle::Area;
use crate::random::Random;
use units::{BLOCK_BYTES, SECTOR_BYTES};
use volume::format::Geometry;
use volume::map::PAGE_BLOCKS;

/// What a world is about. The first byte of a seed says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Nothing goes wrong.
    Calm,
    /// P1: kills, power cuts, crashes during recovery, a store that loses its end or is deleted.
    Durability,
    /// P2: bits rot, writes get lost or go elsewhere.
    Integrity,
    /// P3: writes of many blocks and of parts of blocks, torn by crashes.
    Atomicity,
    /// P4: slots full of what earlier segments left, volumes opened over and over.
    OneWriter,
    /// P5: trims of all sizes, and their space.
    Trim,
    /// P6: I/O errors, a full pool, a full file system, slow I/O.
    Faults,
    /// Appends that fail though their bytes are on the disk, one operation a segment, power cuts: what the chain is for.
    Chain,
    /// A small world whose first life crashes after a number of steps that the seed tells.
    Sweep,
    /// Snapshots, views of them, clones, deletions, rollbacks and groups, among crashes; in some worlds among faults or lies
    /// of the disk, in some in a pool that fills.
    Families,
    /// P1, P2, P6: a small pool that fills with what is overwritten, so that compaction never rests, among all faults.
    Compaction,
    /// A small world with all that [`Profile::Families`] has, whose first life crashes after a number of steps that the
    /// seed tells.
    FamilySweep,
    /// P2: few slots, of which each is soon dead and used again, while some reads last; in some worlds those of heirs.
    Reuse,
    /// P7: months of life, of which time passes by hours and days, and the bill of each.
    Months,
}

/// Every profile, in the order of their numbers.
pub const PROFILES: [Profile; 14] = [
    Profile::Calm,
    Profile::Durability,
    Profile::Integrity,
    Profile::Atomicity,
    Profile::OneWriter,
    Profile::Trim,
    Profile::Faults,
    Profile::Chain,
    Profile::Sweep,
    Profile::Families,
    Profile::Compaction,
    Profile::FamilySweep,
    Profile::Reuse,
    Profile::Months,
];

impl Profile {
    /// The profile of a seed.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        PROFILES[(seed >> 56) as usize % PROFILES.len()]
    }

    /// The seed of this profile that has the other bits of `seed`.
    #[must_use]
    pub const fn seed(self, seed: u64) -> u64 {
        (self as u64) << 56 | seed & 0x00ff_ffff_ffff_ffff
    }

    /// Whether its seeds tell when the first life crashes.
    const fn is_sweep(self) -> bool {
        matches!(self, Self::Sweep | Self::FamilySweep)
    }
}

/// Steps of a first life at most that a sweep cuts short.
pub const SWEEP_STEPS_MAX: u64 = 1 << 16;

/// Where a seed of a sweep tells the step.
const SWEEP_SHIFT: u32 = 40;

/// The seed of the same small world of `profile` that crashes after `step`.
#[must_use]
pub const fn sweep_seed(profile: Profile, seed: u64, step: u64) -> u64 {
    profile.seed(seed) & !((SWEEP_STEPS_MAX - 1) << SWEEP_SHIFT) | (step % SWEEP_STEPS_MAX) << SWEEP_SHIFT
}

/// The step after which the first life of the world of `seed` crashes, where the seed tells one, and the seed of all chance.
#[must_use]
pub const fn crash_of(seed: u64) -> (Option<u64>, u64) {
    let profile = Profile::of(seed);
    if profile.is_sweep() {
        return (Some(seed >> SWEEP_SHIFT & (SWEEP_STEPS_MAX - 1)), sweep_seed(profile, seed, 0));
    }
    (None, seed)
}

/// How many of a thousand requests of each kind go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultRates {
    /// Appends that fail with an I/O error.
    pub append_io: u32,
    /// Appends that fail for want of room below.
    pub append_no_space: u32,
    /// Fetches that fail.
    pub fetch_io: u32,
    /// Syncs that fail.
    pub sync_io: u32,
    /// Commits of the store that fail.
    pub store_commit: u32,
    /// Reads of the store that fail.
    pub store_read: u32,
    /// Reads at a start that fail.
    pub start_read: u32,
    /// Writes and syncs of a start that fail.
    pub start_write: u32,
    /// Appends that are acknowledged and not done.
    pub lost: u32,
    /// Appends that go elsewhere.
    pub misdirected: u32,
    /// Requests after which a block of the pool rots.
    pub rot: u32,
    /// Requests of the disk that take seconds.
    pub slow: u32,
    /// Reads of volumes that last while many other requests come and go.
    pub slow_fetch: u32,
    /// Requests after which a kind of request fails every time, for a while or until the next start.
    pub outage: u32,
    /// Slots for which there is no room below when they are to be leased.
    pub slot_no_space: u32,
    /// Requests after which a page of the stored map is none any more.
    pub map_page: u32,
}

/// How a life of the daemon ends, in parts of a thousand; the rest are clean stops.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// By a kill.
    pub kill: u32,
    /// By a power cut.
    pub power: u32,
    /// Of starts: by another crash.
    pub in_start: u32,
    /// Of stops: with the store deleted.
    pub store_deleted: u32,
}

/// One volume of a world.
#[derive(Debug, Clone)]
pub struct VolumePlan {
    /// Its size when it is made.
    pub size_bytes: u64,
    /// Where clients write.
    pub areas: Vec<Area>,
    /// Requests under way at a time.
    pub depth: u64,
}

/// One world.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it is about.
    pub profile: Profile,
    /// Of the pool.
    pub geometry: Geometry,
    /// Its volumes.
    pub volumes: Vec<VolumePlan>,
    /// Starts of the daemon, but for those that crashes cut short.
    pub lives: u64,
    /// Requests of one life.
    pub requests: u64,
    /// What goes wrong.
    pub rates: FaultRates,
    /// How lives end.
    pub ends: Ends,
    /// Most appends of a volume under way.
    pub appends_in_flight_max: usize,
    /// Of each volume.
    pub map_limit_bytes: usize,
    /// Of each volume.
    pub unfolded_segments_max: usize,
    /// Of each volume.
    pub write_back_pages_max: usize,
    /// Requests of a thousand that are trims or zeroes.
    pub trims: u32,
    /// Requests of a thousand before which something is done with snapshots and clones.
    pub families: u32,
    /// Requests of a thousand that make all before durable.
    pub flushes: u32,
    /// Slots that the store's thread leases before a volume asks.
    pub leases_ahead: usize,
    /// Whether clients pause now and then, so that a volume finds time to write its map back.
    pub has_pauses: bool,
    /// Whether a power cut takes whole writes or leaves them whole.
    pub cuts_whole_writes: bool,
}

impl Plan {
    /// Makes the plan of a profile.
    #[must_use]
    pub fn new(profile: Profile, random: &mut Random) -> Self {
        let slot_bytes = *random.pick(&[64 << 10, 64 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20]);
        let slot_count = random.within(20, 56) as u32;
        let geometry = Geometry { slot_bytes, slot_count };
        // So many blocks that a pool fills now and then: what is there need not fit.
        let blocks = (u64::from(slot_count) * slot_bytes / BLOCK_BYTES * random.within(20, 80) / 100).min(1024);
        let count = random.within(1, 2);
        let volumes = (0..count).map(|_| VolumePlan::new(blocks / count, random)).collect();
        let mut plan = Self {
            profile,
            geometry,
            volumes,
            lives: random.within(1, 5),
            requests: random.within(20, 250),
            rates: FaultRates::default(),
            ends: Ends { kill: 0, power: 0, in_start: 0, store_deleted: 0 },
            appends_in_flight_max: *random.pick(&[1, 1, 2, 4]),
            map_limit_bytes: *random.pick(&[4 << 10, 64 << 10, 8 << 20]),
            unfolded_segments_max: *random.pick(&[1, 3, 8, 64]),
            write_back_pages_max: 256,
            trims: random.within(0, 150) as u32,
            families: 0,
            flushes: *random.pick(&[0, 20, 100]),
            leases_ahead: *random.pick(&[0, 0, 2]),
            has_pauses: true,
            cuts_whole_writes: false,
        };
        plan.specialise(random);
        plan
    }

    fn specialise(&mut self, random: &mut Random) {
        let crashes = Ends { kill: 350, power: 450, in_start: 250, store_deleted: 150 };
        match self.profile {
            Profile::Calm => {}
            Profile::Durability | Profile::Atomicity => self.ends = crashes,
            Profile::OneWriter => {
                self.ends = crashes;
                self.lives = random.within(4, 10);
                self.geometry = Geometry { slot_bytes: 64 << 10, slot_count: random.within(12, 24) as u32 };
                self.trims = 200;
            }
            Profile::Trim => {
                self.trims = random.within(200, 600) as u32;
                self.ends = Ends { kill: 250, power: 250, in_start: 100, store_deleted: 200 };
            }
            Profile::Integrity => {
                self.add_lies(random);
                self.ends = Ends { kill: 400, power: 200, in_start: 50, store_deleted: 100 };
            }
            Profile::Faults => self.add_faults(random),
            Profile::Chain => self.make_chains_matter(random),
            Profile::Sweep => self.make_small(random),
            Profile::Families => self.add_families(random),
            Profile::Compaction => self.make_tight(random),
            Profile::Reuse => self.make_slots_return(random),
            Profile::Months => self.make_months(random),
            Profile::FamilySweep => {
                self.make_small(random);
                self.geometry.slot_count = random.within(40, 60) as u32;
                self.families = 500;
            }
        }
    }

    fn add_faults(&mut self, random: &mut Random) {
        let mut rate = |most| if random.chance(400) { random.within(1, most) as u32 } else { 0 };
        self.rates = FaultRates {
            append_io: rate(100),
            append_no_space: rate(50),
            fetch_io: rate(100),
            sync_io: rate(20),
            store_commit: rate(100),
            store_read: rate(50),
            start_read: rate(5),
            slow: rate(50),
            outage: rate(10),
            start_write: rate(30),
            slot_no_space: rate(500),
            map_page: rate(5),
            ..self.rates
        };
        self.ends = Ends { kill: 300, power: 300, in_start: 100, store_deleted: 100 };
    }

    fn add_families(&mut self, random: &mut Random) {
        self.geometry.slot_count = random.within(60, 120) as u32;
        match random.below(10) {
            0..3 => {
                self.add_faults(random);
                self.rates.map_page = 0;
            }
            3..5 => self.add_lies(random),
            5..8 => self.geometry = Geometry { slot_bytes: 64 << 10, slot_count: random.within(30, 60) as u32 },
            _ => {}
        }
        self.ends = Ends { kill: 300, power: 300, in_start: 100, store_deleted: 250 };
        self.families = *random.pick(&[20, 60, 200]);
        self.lives = random.within(2, 6);
    }

    fn make_small(&mut self, random: &mut Random) {
        self.geometry = Geometry { slot_bytes: 64 << 10, slot_count: random.within(12, 24) as u32 };
        self.ends = Ends { kill: 400, power: 600, in_start: 300, store_deleted: 200 };
        self.flushes = 100;
        self.lives = 2;
        self.requests = random.within(10, 40);
    }

    /// So much is live in few slots that only compaction finds room for what is overwritten.
    fn make_tight(&mut self, random: &mut Random) {
        let slot_bytes = *random.pick(&[64 << 10, 64 << 10, 128 << 10, 1 << 20]);
        let slot_count = if slot_bytes > 1 << 18 { random.within(9, 16) } else { random.within(9, 30) } as u32;
        self.geometry = Geometry { slot_bytes, slot_count };
        let pool_blocks = u64::from(slot_count) * slot_bytes / BLOCK_BYTES;
        let blocks = pool_blocks * random.within(20, 60) / 100;
        let count = random.within(1, 2);
        self.volumes = (0..count).map(|_| VolumePlan::new((blocks / count).max(8), random)).collect();
        self.unfolded_segments_max = *random.pick(&[1, 3, 8]);
        self.trims = *random.pick(&[0, 30, 150]);
        self.lives = random.within(2, 6);
        self.requests = random.within(100, 500);
        self.ends = Ends { kill: 350, power: 350, in_start: 150, store_deleted: 150 };
        match random.below(4) {
            0 => {}
            1 => {
                let ends = self.ends;
                self.add_faults(random);
                self.ends = ends;
            }
            2 => self.add_lies(random),
            _ => self.rates.fetch_io = *random.pick(&[0, 20]),
        }
    }

    /// A few blocks that are overwritten again and again, so that slots die young.
    fn make_slots_return(&mut self, random: &mut Random) {
        self.geometry = Geometry { slot_bytes: 64 << 10, slot_count: random.within(10, 16) as u32 };
        let areas = vec![Area::of_blocks(0, random.within(8, 40))];
        self.volumes = vec![VolumePlan { size_bytes: 16 << 20, areas, depth: *random.pick(&[4, 8, 32]) }];
        self.unfolded_segments_max = *random.pick(&[1, 2]);
        self.map_limit_bytes = 8 << 20;
        self.trims = 0;
        self.lives = random.within(1, 2);
        self.requests = random.within(200, 500);
        self.rates.slow_fetch = 200;
        if random.chance(500) {
            // Heirs read what is their parents'.
            self.geometry.slot_count = random.within(24, 40) as u32;
            self.families = *random.pick(&[60, 200]);
        }
    }

    /// Little is written, trimmed and written again, so that it matters when; pages are stored long before the map is complete.
    fn make_months(&mut self, random: &mut Random) {
        self.geometry = Geometry { slot_bytes: 64 << 10, slot_count: random.within(60, 120) as u32 };
        for volume in &mut self.volumes {
            volume.size_bytes = volume.size_bytes.min(1 << 40);
            volume.areas.retain(|area| (area.first_sector + area.sectors) * SECTOR_BYTES <= volume.size_bytes);
        }
        self.map_limit_bytes = *random.pick(&[4 << 10, 64 << 10]);
        self.unfolded_segments_max = *random.pick(&[3, 64]);
        // Pages are stored ahead of where the map is complete to.
        self.write_back_pages_max = *random.pick(&[1, 2]);
        self.trims = random.within(100, 500) as u32;
        self.families = *random.pick(&[20, 60]);
        self.ends = Ends { kill: 400, power: 400, in_start: 100, store_deleted: 0 };
        self.lives = random.within(3, 6);
        self.requests = random.within(40, 200);
    }

    fn add_lies(&mut self, random: &mut Random) {
        let rate = |random: &mut Random| *random.pick(&[0, 2, 10]);
        let (lost, misdirected) = (rate(random), rate(random));
        self.rates = FaultRates { lost, misdirected, rot: *random.pick(&[0, 10, 40]), ..self.rates };
        self.rates.map_page = *random.pick(&[0, 0, 5]);
    }

    fn make_chains_matter(&mut self, random: &mut Random) {
        self.geometry = Geometry { slot_bytes: 64 << 10, slot_count: 40 };
        self.volumes =
            vec![VolumePlan { size_bytes: 1 << 20, areas: vec![Area { first_sector: 0, sectors: 1 << 11 }], depth: 1 }];
        self.rates.append_no_space = 200;
        self.ends = Ends { kill: 50, power: 950, in_start: 0, store_deleted: 50 };
        self.has_pauses = false;
        self.cuts_whole_writes = true;
        self.appends_in_flight_max = 1;
        self.lives = 12;
        self.requests = random.within(4, 30);
    }
}

impl VolumePlan {
    fn new(blocks: u64, random: &mut Random) -> Self {
        let size_bytes = *random.pick(&[16 << 20, 16 << 20, 1 << 40, 1 << 62]);
        let page = u64::from(PAGE_BLOCKS);
        let last = size_bytes / BLOCK_BYTES;
        let first_span = random.within(1, blocks.max(2) - 1);
        let edge = (blocks - first_span).clamp(2, 64);
        let mut areas = vec![Area::of_blocks(0, first_span.min(page - edge))];
        // Over the border of two pages, and at the end.
        areas.push(Area::of_blocks(page - edge / 2, edge));
        if random.chance(500) {
            areas.push(Area::of_blocks(last - edge, edge));
        }
        Self { size_bytes, areas, depth: *random.pick(&[1, 2, 4, 8, 32]) }
    }
}

impl Area {
    const fn of_blocks(first: u64, count: u64) -> Self {
        let sectors = BLOCK_BYTES / SECTOR_BYTES;
        Self { first_sector: first * sectors, sectors: count * sectors }
    }
}
