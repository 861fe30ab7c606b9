//! The command window: which numbers are taken, and how many commands may be under way. RFC 7143 4.2.2.1.

use super::{HOST, OTHER_HOST, World, filled, is_all, reason};
use crate::initiator::{
    Connection, Heard, Login, READ, SIMPLE, Session, WRITE, command, data_out, nop_out, read10, send_asked, write10,
};
use proto::iscsi::constants::{RESERVED_TAG, opcode, task_function, task_response};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const WINDOW: u32 = 128;

fn width(connection: &Connection) -> u32 {
    connection.max_cmd_sn.wrapping_sub(connection.exp_cmd_sn).wrapping_add(1)
}

/// P2. Numbers below and above the window, and numbers that came before, are ignored with all that comes with them.
#[test]
fn what_is_outside_of_the_window_is_ignored() {
    let world = World::start();
    // Once over the wrap of the numbers too.
    for (cmd_sn, host) in [(1, HOST), (u32::MAX - 20, OTHER_HOST)] {
        let mut session = Session::begin(Login { cmd_sn, ..world.login(host) });
        session.join(2);
        session.write(0, 0, &filled(1, 4096));
        let next = session.cmd_sn;
        for wrong in
            [next.wrapping_sub(1), next.wrapping_sub(100), next.wrapping_add(WINDOW), next.wrapping_add(1 << 31)]
        {
            let itt = session.next_itt();
            let write = command(WRITE | SIMPLE, (itt, wrong), 4096, &write10(0, 8));
            session.connections[0].send(&write.clone().with_data(&filled(2, 4096)));
            session.connections[0].send(&write);
            let itt = session.next_itt();
            session.connections[0].send(&nop_out((itt, wrong), b"nobody hears"));
        }
        session.connections[0].hear_nothing();
        session.ping(0);
        // A command that is held, and others of its number by the same connection and another.
        let (first, held) = (session.next(), session.next());
        let write = command(WRITE | SIMPLE, held, 4096, &write10(0, 8)).with_data(&filled(3, 4096));
        session.connections[0].send(&write);
        for at in [0, 1] {
            let double = command(WRITE | SIMPLE, (session.next_itt(), held.1), 4096, &write10(0, 8));
            session.connections[at].send(&double.with_data(&filled(4, 4096)));
            session.connections[at].hear_nothing();
        }
        session.connections[1].send(&command(WRITE | SIMPLE, first, 4096, &write10(8, 8)).with_data(&filled(5, 4096)));
        assert_eq!(session.finish(1, first.0, &[]).status, 0);
        assert_eq!(session.finish(0, held.0, &[]).status, 0);
        assert!(is_all(&session.read(1, 0, 8), 3) && is_all(&session.read(1, 8, 8), 5));
        session.ping(0);
        session.ping(1);
        assert_eq!(width(&session.connections[1]), WINDOW, "what was ignored takes no place");
    }
    world.end();
}

/// RFC 7143 4.2.2.1. The same command once more, number and tag and all, while it is under way, is ignored and not rejected.
#[test]
fn a_command_that_comes_twice_is_ignored_the_second_time() {
    let world = World::start();
    let mut session = world.session();
    let numbers = session.next();
    let write = command(WRITE | SIMPLE, numbers, 4096, &write10(0, 8));
    session.connections[0].send(&write);
    let asked = session.connections[0].receive();
    session.connections[0].send(&write);
    session.connections[0].hear_nothing();
    send_asked(&mut session.connections[0], &asked, &filled(7, 4096));
    assert_eq!(session.finish(0, numbers.0, &[]).status, 0);
    assert!(is_all(&session.read(0, 0, 8), 7));
    drop(session);
    world.end();
}

/// RFC 7143 4.2.2.1. As many commands as the window has may be under way, and no more; as they end it opens again.
#[test]
fn the_window_is_as_wide_as_it_says() {
    let world = World::start();
    let mut session = world.session();
    assert_eq!(width(&session.connections[0]), WINDOW);
    for round in 0..3_u8 {
        let open: Vec<_> = (0..WINDOW).map(|place| session.open_write(0, place * 8, 4096)).collect();
        assert_eq!(width(&session.connections[0]), 0, "all places are taken");
        // One more is ignored; what is immediate is not.
        let beyond = (session.next_itt(), session.cmd_sn);
        session.connections[0].send(&command(SIMPLE, beyond, 0, &[0; 6]));
        session.connections[0].hear_nothing();
        let at_once = session.next_immediate();
        session.connections[0].send(&command(READ | SIMPLE, at_once, 512, &read10(0, 1)).immediate());
        assert_eq!(session.finish(0, at_once.0, &[]).status, 0);
        // They end in another order than they came in.
        for (itt, asked) in open.iter().rev() {
            send_asked(&mut session.connections[0], asked, &filled(round + 1, 4096));
            assert_eq!(session.finish(0, *itt, &[]).status, 0);
        }
        assert_eq!(width(&session.connections[0]), WINDOW);
        assert!(is_all(&session.read(0, 0, 1024), round + 1));
    }
    drop(session);
    world.end();
}

/// P2. A window full of commands in one go, of every size, is carried out, each once; and again, and the stream goes on.
#[test]
fn a_window_full_of_commands_at_once_is_carried_out() {
    let world = World::start();
    let mut session = world.session();
    let all = crate::tool::noise(5, 16 << 20);
    for (place, piece) in (0..).zip(all.chunks(1 << 20)) {
        session.write(0, place * 2048, piece);
    }
    for round in 0..12_u32 {
        let first = session.cmd_sn;
        let mut bytes = Vec::new();
        for place in 0..WINDOW {
            // From 512 bytes up to 1 MiB each: up to 128 MiB in all.
            let blocks = 1_u16 << ((place + round) % 12);
            let lba = (place * 97) % 16384;
            let numbers = (1000 + place, first + place);
            let read = command(READ | SIMPLE, numbers, u32::from(blocks) * 512, &read10(lba, blocks));
            bytes.extend(session.connections[0].encode(&read, crate::initiator::Spoilt::Nothing));
        }
        session.cmd_sn += WINDOW;
        assert!(session.connections[0].try_send(&bytes));
        // More is sent while the answers wait to be taken.
        for ping in 0..20 {
            let ping = nop_out((2000 + ping, session.cmd_sn), b"").immediate();
            session.connections[0].send(&ping);
            std::thread::sleep(Duration::from_millis(1));
        }
        take_reads(&mut session.connections[0], &all, 20);
        session.ping(0);
        assert_eq!(width(&session.connections[0]), WINDOW);
    }
    drop(session);
    world.end();
}

/// Takes the answers of a window of reads, in whatever order, and of so many pings.
fn take_reads(connection: &mut Connection, all: &[u8], pings: usize) {
    let mut came = vec![0; 128];
    let (mut ended, mut ponged) = (0, 0);
    while ended < 128 || ponged < pings {
        let pdu = match connection.hear(Duration::from_secs(10)) {
            Heard::Pdu(pdu) => pdu,
            other @ (Heard::End | Heard::Silence) => {
                panic!("{other:?}; {ended} of 128 reads and {ponged} of {pings} pings are answered")
            }
        };
        if pdu.opcode() == opcode::NOP_IN {
            ponged += 1;
            continue;
        }
        assert_eq!(pdu.opcode(), opcode::DATA_IN, "{pdu:?}");
        let place = usize::try_from(pdu.itt() - 1000).unwrap();
        let start = (place * 97) % 16384 * 512 + came[place];
        assert_eq!(usize::try_from(pdu.word(40)).unwrap(), came[place]);
        assert!(pdu.data == all[start..start + pdu.data.len()], "command {place} at {}", came[place]);
        came[place] += pdu.data.len();
        ended += usize::from(pdu.has(crate::initiator::STATUS));
    }
}

/// RFC 7143 4.2.2.1, 11.5.1. A command that is aborted while it waits for one before it gives its place back, and its tag.
#[test]
fn a_command_that_is_aborted_while_it_is_held_gives_its_place_back() {
    let world = World::start();
    let mut session = world.session();
    session.write(0, 0, &filled(1, 4096));
    for _ in 0..4 {
        let (before, held) = (session.next(), session.next());
        session.connections[0].send(&command(WRITE | SIMPLE, held, 4096, &write10(0, 8)).with_data(&filled(2, 4096)));
        assert_eq!(session.manage(0, task_function::ABORT_TASK, held), task_response::COMPLETE);
        session.connections[0].send(&command(SIMPLE, before, 0, &[0; 6]));
        assert_eq!(session.finish(0, before.0, &[]).status, 0);
        session.ping(0);
        assert!(is_all(&session.read(0, 0, 8), 1));
    }
    assert_eq!(width(&session.connections[0]), WINDOW);
    drop(session);
    world.end();
}

/// No memory without a bound: of commands that take no number only so many are taken at a time. RFC 7143 11.17.1.
#[test]
fn immediate_commands_are_bounded_too() {
    let world = World::start();
    let mut session = world.session();
    let cmd_sn = session.cmd_sn;
    let mut taken = 0;
    let refused = loop {
        let itt = session.next_itt();
        session.connections[0].send(&command(WRITE | SIMPLE, (itt, cmd_sn), 4096, &write10(0, 8)).immediate());
        match session.connections[0].hear(Duration::from_secs(2)) {
            Heard::Pdu(pdu) if pdu.opcode() == opcode::R2T => taken += 1,
            Heard::Pdu(pdu) => break pdu,
            other @ (Heard::End | Heard::Silence) => panic!("{other:?} after {taken}"),
        }
        assert!(taken < 5000, "{taken} immediate commands wait for their data");
    };
    let is_told = refused.opcode() == opcode::REJECT && refused.bhs[2] == reason::TOO_MANY_IMMEDIATE;
    let is_busy = refused.opcode() == opcode::RESPONSE && [0x08, 0x28].contains(&refused.bhs[3]);
    assert!(is_told || is_busy, "{refused:?}");
    world.end();
}

/// P6. More writes at once than there is memory for wait for their turn, and are all carried out, though the second session sends
/// nothing before the first one is through. Often, since this once hung in one run of six: what the first one released was looked
/// at by writes of the second alone.
#[test]
fn writes_beyond_the_memory_that_there_is_wait_and_are_carried_out() {
    let world = World::start();
    for _ in 0..5 {
        carry_out_more_than_fits(&world);
    }
    world.end();
}

fn carry_out_more_than_fits(world: &World) {
    let mut sessions = [world.session(), world.session()];
    let data = crate::tool::noise(11, 1 << 20);
    for session in &mut sessions {
        for place in 0..120 {
            let numbers = session.next();
            let lba = (place % 60) * 2048;
            session.connections[0].send(&command(WRITE | SIMPLE, numbers, 1 << 20, &write10(lba, 2048)));
        }
    }
    for session in &mut sessions {
        let connection = &mut session.connections[0];
        let mut ended = 0;
        while ended < 120 {
            match connection.hear(Duration::from_secs(10)) {
                Heard::Pdu(pdu) if pdu.opcode() == opcode::R2T => send_asked(connection, &pdu, &data),
                Heard::Pdu(pdu) if pdu.opcode() == opcode::RESPONSE => {
                    assert_eq!(pdu.bhs[3], 0, "{pdu:?}");
                    ended += 1;
                }
                other @ (Heard::Pdu(_) | Heard::End | Heard::Silence) => {
                    panic!("{other:?} after {ended} of 120 writes")
                }
            }
        }
        session.ping(0);
        assert_eq!(width(&session.connections[0]), WINDOW);
    }
    assert!(sessions[0].read(0, 59 * 2048, 2048) == data);
}

/// P6. What comes unasked of a window full of writes is as much as a connection may hold: they go on all the same, each for itself,
/// in the order in which they came.
#[test]
fn writes_whose_first_bursts_fill_the_memory_are_carried_out() {
    let world = World::start();
    let mut session = world.session();
    let data = crate::tool::noise(12, 512 << 10);
    let mut tags = std::collections::VecDeque::new();
    for place in 0..WINDOW {
        let numbers = session.next();
        let write = command(WRITE | SIMPLE, numbers, 512 << 10, &write10((place % 60) * 1024, 1024));
        session.connections[0].send(&write.with_data(&data[..256 << 10]));
        tags.push_back(numbers.0);
    }
    let connection = &mut session.connections[0];
    let mut ended = 0;
    while ended < WINDOW {
        match connection.hear(Duration::from_secs(10)) {
            Heard::Pdu(pdu) if pdu.opcode() == opcode::R2T => {
                assert_eq!(Some(pdu.itt()), tags.pop_front(), "who waits longest comes first");
                send_asked(connection, &pdu, &data);
            }
            Heard::Pdu(pdu) if pdu.opcode() == opcode::RESPONSE => {
                assert_eq!(pdu.bhs[3], 0, "{pdu:?}");
                ended += 1;
            }
            other @ (Heard::Pdu(_) | Heard::End | Heard::Silence) => panic!("{other:?} after {ended} writes"),
        }
    }
    session.ping(0);
    assert_eq!(width(&session.connections[0]), WINDOW);
    assert!(session.read(0, 59 * 1024, 1024) == data);
    world.end();
}

/// P8. Initiators that always have all the memory, and always send what they are asked for, do not keep another from its write.
#[test]
fn who_is_always_served_keeps_nobody_from_being_so() {
    let world = World::start();
    let mut victim = world.other_session();
    let hogs: Vec<Session> = (0..4).map(|_| world.session()).collect();
    let has_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for hog in hogs {
            let has_ended = &has_ended;
            scope.spawn(move || keep_writing(hog, has_ended));
        }
        // Also when this thread panics, or the others would go on for ever.
        let _ending = Ending(&has_ended);
        std::thread::sleep(Duration::from_millis(500));
        for round in 1..5 {
            victim.write(0, 16384, &filled(round, 2 << 20));
            assert!(is_all(&victim.read(0, 16384, 4096), round));
        }
    });
    world.end();
}

/// Ends those who keep writing.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has nine writes of 4 MiB under way all the time, of which each is sent as it is asked for.
fn keep_writing(mut hog: Session, has_ended: &AtomicBool) {
    let data = filled(9, 4 << 20);
    let mut open = 0;
    loop {
        while open < 9 && !has_ended.load(Ordering::Relaxed) {
            let numbers = hog.next();
            hog.connections[0].send(&command(WRITE | SIMPLE, numbers, 4 << 20, &write10(0, 8192)));
            open += 1;
        }
        if open == 0 {
            return;
        }
        match hog.connections[0].hear(Duration::from_secs(10)) {
            Heard::Pdu(pdu) if pdu.opcode() == opcode::R2T => send_asked(&mut hog.connections[0], &pdu, &data),
            Heard::Pdu(pdu) if pdu.opcode() == opcode::RESPONSE => open -= 1,
            other @ (Heard::Pdu(_) | Heard::End | Heard::Silence) => panic!("{other:?}"),
        }
    }
}

/// P6. First bursts that come in many pieces, while all that the connection may have is asked for, keep nobody behind them.
#[test]
fn a_first_burst_in_pieces_keeps_its_place() {
    let world = World::start();
    for pieces in [1, 2, 4, 8, 16] {
        let mut session = world.session();
        let data = crate::tool::noise(13, 32 << 20);
        let (large, first, second) = (session.next(), session.next(), session.next());
        let connection = &mut session.connections[0];
        connection.send(&command(WRITE | SIMPLE, large, 65_535 * 512, &write10(0, u16::MAX)));
        connection.send(&command(WRITE | SIMPLE, first, 512 << 10, &write10(0, 1024)).not_final());
        connection.send(&command(WRITE | SIMPLE, second, 512 << 10, &write10(1024, 1024)));
        let burst = &data[..256 << 10];
        let mut offset = 0;
        for (sn, piece) in (0..).zip(burst.chunks(burst.len() / pieces)) {
            let is_last = sn + 1 == u32::try_from(pieces).unwrap();
            connection.send(&data_out(is_last, (first.0, RESERVED_TAG), sn, offset, piece));
            offset += u32::try_from(piece.len()).unwrap();
        }
        let mut ended = 0;
        while ended < 3 {
            match connection.hear(Duration::from_secs(10)) {
                Heard::Pdu(pdu) if pdu.opcode() == opcode::R2T => send_asked(connection, &pdu, &data),
                Heard::Pdu(pdu) if pdu.opcode() == opcode::RESPONSE => ended += 1,
                other @ (Heard::Pdu(_) | Heard::End | Heard::Silence) => panic!("{other:?}: {pieces} pieces, {ended}"),
            }
        }
        session.ping(0);
    }
    world.end();
}

/// P6. Initiators that have all the memory asked for and send nothing do not keep another from its write for ever.
#[test]
fn who_announces_much_and_sends_nothing_is_not_in_the_way() {
    let world = World::start();
    let mut victim = world.other_session();
    let mut hogs: Vec<Session> = (0..6).map(|_| world.session()).collect();
    for hog in &mut hogs {
        for _ in 0..120 {
            let numbers = hog.next();
            hog.connections[0].send(&command(WRITE | SIMPLE, numbers, 1 << 20, &write10(0, 2048)));
        }
    }
    let begin = std::time::Instant::now();
    for round in 1..5 {
        victim.write(0, 0, &filled(round, 4 << 20));
        assert!(is_all(&victim.read(0, 0, 8192), round));
    }
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
}
