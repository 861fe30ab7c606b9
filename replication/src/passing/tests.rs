use super::*;
use units::Monotonic;
use volume::error::ErrorKind;

const NOW: Monotonic = Monotonic(5_000_000_000);

fn later(milliseconds: u64) -> Monotonic {
    NOW.plus(Duration::from_millis(milliseconds))
}

fn range(offset: u64, len: u64) -> ByteRange {
    ByteRange::new(offset, len).unwrap()
}

fn write(byte: u8) -> Request {
    let payload = std::iter::once(Buffer::copy_of(&[byte; 4096])).collect();
    Request::Write { range: range(8192, 4096), payload, fua: true }
}

fn compare() -> Request {
    let piece = |byte| std::iter::once(Buffer::copy_of(&[byte; 512])).collect();
    Request::CompareAndWrite { range: range(0, 512), expected: piece(1), payload: piece(2), fua: false }
}

/// Two sites, one request of which the tick is as it was told before.
struct Sites {
    asker: Asker<u8>,
    answerer: Answerer,
}

impl Sites {
    fn new() -> Self {
        let mut sites = Self { asker: Asker::default(), answerer: Answerer::default() };
        // The first question of a life has no tick, and is told one.
        let ask = sites.asker.ask(NOW, Held::new(NOW, 0, Request::Flush)).unwrap();
        let stale = sites.answerer.take(NOW, true, ask).unwrap_err();
        assert!(matches!(stale.outcome, Outcome::Stale));
        let came = sites.asker.on_answer(NOW, stale).unwrap();
        let Came::Again { held, at_once: true } = came else { panic!("{came:?}") };
        assert!(held.key == 0 && held.may_fail(NOW) && !held.is_lost());
        sites
    }

    fn came(&mut self, now: Monotonic, request: Request, result: Result<Completion, Error>) -> Came<u8> {
        let ask = self.asker.ask(now, Held::new(now, 1, request)).unwrap();
        let (guest, _) = self.answerer.take(now, true, ask).unwrap();
        let answer = {
            self.answerer.close(guest);
            Answerer::answer(now, guest, result)
        };
        self.asker.on_answer(now, answer).unwrap()
    }
}

/// P2. What is asked there is what was asked here, and so is the answer.
#[test]
fn a_request_and_its_answer_pass() {
    let mut sites = Sites::new();
    let ask = sites.asker.ask(NOW, Held::new(NOW, 7, write(0xab))).unwrap();
    let (guest, request) = sites.answerer.take(later(2998), true, ask).unwrap();
    let Request::Write { range: asked, payload, fua: true } = request else { panic!("{request:?}") };
    assert_eq!((asked, payload[0].as_slice()), (range(8192, 4096), &[0xab; 4096][..]));
    let answer = Answerer::answer(later(4000), guest, Ok(Completion::Done));
    let came = sites.asker.on_answer(NOW, answer);
    assert!(matches!(came, Some(Came::Answered(7, Ok(Completion::Done), _))), "{came:?}");
    let failed = sites.came(later(4000), Request::Flush, Err(Error::new(ErrorKind::Poisoned, "why")));
    let Came::Answered(_, Err(error), _) = failed else { panic!("{failed:?}") };
    assert_eq!(error, Error::new(ErrorKind::Poisoned, "why"));
}

/// P1. S7: what comes late is not taken, by the clock that told the tick and for how long the client had waited when that was heard.
#[test]
fn what_comes_late_is_not_taken() {
    let mut sites = Sites::new();
    let ask = sites.asker.ask(NOW, Held::new(NOW, 1, write(1))).unwrap();
    let stale = sites.answerer.take(later(3000), true, ask).unwrap_err();
    assert!(matches!(stale.outcome, Outcome::Stale));
    // Heard a second later, the tick that came with that is of no use: the client has waited for four.
    let came = sites.asker.on_answer(later(4000), stale);
    let Some(Came::Again { held, at_once: true }) = came else { panic!("{came:?}") };
    assert!(held.may_fail(NOW), "nothing of it was begun");
    assert!(!sites.asker.is_in_time(later(4000), &held));
    let ask = sites.asker.ask(later(4000), held).unwrap();
    assert!(matches!(sites.answerer.take(later(4001), true, ask), Err(Answer { outcome: Outcome::Stale, .. })));
    // One that came in between is taken for as long as is left of its time.
    let held = Held::new(later(2000), 1, write(1));
    assert!(sites.asker.is_in_time(later(9000), &held));
    let ask = sites.asker.ask(later(4000), held).unwrap();
    assert_eq!(ask.waited_ms, 2001);
    let again = Ask { number: 99, tick: ask.tick, waited_ms: ask.waited_ms, ..Ask::of(&Request::Flush).unwrap() };
    assert!(sites.answerer.take(later(3999), true, ask).is_ok());
    assert!(matches!(sites.answerer.take(later(4000), true, again), Err(Answer { outcome: Outcome::Stale, .. })));
    // A tick of a later moment is one of another life; without any, nothing is taken.
    let ask = sites.asker.ask(later(4000), Held::new(later(4000), 1, write(1))).unwrap();
    assert!(sites.answerer.take(later(2999), true, ask).is_err());
    let mut new = Asker::default();
    let held = Held::new(NOW, 1, Request::Flush);
    assert!(new.is_in_time(later(3000), &held) && !new.is_in_time(later(3001), &held));
    let ask = new.ask(NOW, held).unwrap();
    assert!(Answerer::default().take(Monotonic(0), true, ask).is_err());
}

/// P1. What the other site does not take is asked for again; a request that may have been done is, but for one that would find
/// its own bytes.
#[test]
fn what_may_have_been_done_is_tried_again() {
    let mut sites = Sites::new();
    let ask = sites.asker.ask(NOW, Held::new(NOW, 1, compare())).unwrap();
    let not_here = sites.answerer.take(NOW, false, ask).unwrap_err();
    let came = sites.asker.on_answer(NOW, not_here);
    let Some(Came::Again { held, at_once: false }) = came else { panic!("{came:?}") };
    assert!(!held.is_lost() && held.may_fail(NOW), "nothing was begun");
    let ask = sites.asker.ask(NOW, held).unwrap();
    let (guest, _) = sites.answerer.take(NOW, true, ask).unwrap();
    let waited = Answerer::give_back(NOW, guest);
    assert!(
        matches!(sites.asker.on_answer(NOW, waited), Some(Came::Again { held, at_once: false }) if !held.is_lost())
    );

    let fenced = || Err(Error::new(ErrorKind::Fenced, "it leads no more"));
    let came = sites.came(NOW, write(1), fenced());
    assert!(matches!(came, Came::Again { held, at_once: true } if !held.is_lost() && held.may_fail(NOW)));
    let came = sites.came(NOW, compare(), fenced());
    assert!(matches!(came, Came::Again { held, .. } if held.is_lost() && held.may_fail(NOW)));
}

/// P1. S7: of what was lost on its way no client is told that it failed while the other site may yet begin it.
#[test]
fn what_may_yet_be_begun_has_not_failed() {
    let mut sites = Sites::new();
    for (key, request) in [(1, write(1)), (2, compare()), (3, Request::Flush)] {
        let ask = sites.asker.ask(later(u64::from(key)), Held::new(NOW, key, request)).unwrap();
        // That is how long it may take for being begun, by a clock that is a tenth slower.
        assert!(sites.answerer.take(later(2998), true, ask).is_ok());
    }
    let held = sites.asker.take_all();
    assert_eq!(
        held.iter().map(|held| (held.key, held.is_lost())).collect::<Vec<_>>(),
        [(1, false), (2, true), (3, false)]
    );
    assert!(held.iter().all(|held| !held.may_fail(later(3750)) && held.may_fail(later(3753))));
    assert!(sites.asker.take_all().is_empty());
    // That another life has no use for it does not change that.
    let [first, ..] = <[Held<u8>; 3]>::try_from(held).unwrap();
    let ask = sites.asker.ask(later(100), first).unwrap();
    assert_eq!(ask.tick, 0, "another life, whose clock is not known");
    let refused = sites.answerer.take(later(100), false, ask).unwrap_err();
    let came = sites.asker.on_answer(later(100), refused);
    assert!(matches!(came, Some(Came::Again { held, .. }) if !held.may_fail(later(3750))));
}

/// P6. What is under way is bounded on both sides, and what has ended makes room.
#[test]
fn what_is_under_way_is_bounded() {
    let mut sites = Sites::new();
    let read = |len| Request::Read { range: range(0, len) };
    let ask = sites.asker.ask(NOW, Held::new(NOW, 0, read(OPEN_BYTES_MAX))).unwrap();
    assert!(!sites.asker.has_room_for(&read(1)) && sites.asker.has_room_for(&Request::Flush));
    assert!(sites.asker.take_back(ask.number).is_some());
    assert!(sites.asker.has_room_for(&read(OPEN_BYTES_MAX)));
    for _ in 0..OPEN_MAX {
        sites.asker.ask(NOW, Held::new(NOW, 0, Request::Flush)).unwrap();
    }
    assert!(!sites.asker.has_room_for(&Request::Flush));
    // A site that does not keep to it is not served more.
    let mut guests = Vec::new();
    let refused = loop {
        let ask = sites.asker.ask(NOW, Held::new(NOW, 0, read(OPEN_BYTES_MAX / 4))).unwrap();
        match sites.answerer.take(NOW, true, ask) {
            Ok((guest, _)) => guests.push(guest),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused.outcome, Outcome::NotHere) && guests.len() == 8, "{}", guests.len());
    guests.into_iter().for_each(|guest| sites.answerer.close(guest));
    let ask = sites.asker.ask(NOW, Held::new(NOW, 0, read(OPEN_BYTES_MAX))).unwrap();
    assert!(sites.answerer.take(NOW, true, ask).is_ok());
}

/// P2. An answer that cannot be one is an error; an unknown one is nothing.
#[test]
fn an_answer_that_cannot_be_is_an_error() {
    let unfit = [
        (Request::Read { range: range(0, 4096) }, Completion::Done),
        (Request::Read { range: range(0, 4096) }, Completion::Read { buffer: Buffer::zeroed(4096), skip: 0, len: 512 }),
        (
            Request::Read { range: range(0, 4096) },
            Completion::Read { buffer: Buffer::zeroed(4096), skip: 1, len: 4096 },
        ),
        (
            Request::Read { range: range(0, 4096) },
            Completion::Read { buffer: Buffer::zeroed(4 * 4096), skip: 0, len: 4096 },
        ),
        (write(1), Completion::Miscompare { at: 0 }),
        (compare(), Completion::Miscompare { at: 512 }),
        (Request::Extents { range: range(0, 4096), extents_max: 1 }, Completion::Extents(Vec::new())),
        (
            Request::Extents { range: range(0, 4096), extents_max: 1 },
            Completion::Extents(vec![Extent { len: 8192, is_data: true }]),
        ),
        (
            Request::Extents { range: range(0, 8192), extents_max: 1 },
            Completion::Extents(vec![Extent { len: 4096, is_data: true }; 2]),
        ),
        (
            Request::Extents { range: range(0, 8192), extents_max: 4 },
            Completion::Extents(vec![Extent { len: 0, is_data: true }]),
        ),
    ];
    for (request, completion) in unfit {
        let shown = format!("{request:?} {completion:?}");
        let came = Sites::new().came(NOW, request, Ok(completion));
        let is_error = matches!(&came, Came::Answered(_, Err(error), _) if error.kind == ErrorKind::Unavailable);
        assert!(is_error, "{shown}: {came:?}");
    }
    let answer = Answer { number: 99, tick: 1, outcome: Outcome::Done };
    assert!(Sites::new().asker.on_answer(NOW, answer).is_none());
    // Nor is a question that nobody can ask begun.
    let ask = Ask { payload: vec![Buffer::zeroed(1)], ..Ask::of(&Request::Flush).unwrap() };
    let ask = Ask { tick: 5001, ..ask };
    let refused = Answerer::default().take(NOW, true, ask).unwrap_err();
    assert!(matches!(refused.outcome, Outcome::Failed(error) if error.kind == ErrorKind::InvalidRequest));
    assert!(Asker::default().ask(NOW, Held::new(NOW, 1, Request::Checkpoint)).is_err());
}

/// P1, P6. What becomes of a request that waits, by the role of its site.
#[test]
fn each_role_has_its_turn() {
    use crate::seat::Admission::{Pass, Refuse, Serve, Wait};
    let mut asker = Asker::default();
    let turn = |asker: &Asker<u8>, now, admission, whose| {
        let held = Held::new(NOW, 1, write(1));
        asker.turn(now, admission, &held, whose)
    };
    for (admission, own, abandoned, guest) in [
        (Serve, Turn::Begin, Turn::Fail, Turn::Begin),
        (Wait, Turn::Wait, Turn::Fail, Turn::Wait),
        (Pass, Turn::PassOn, Turn::Fail, Turn::GiveBack),
        (Refuse, Turn::Fail, Turn::Fail, Turn::GiveBack),
    ] {
        for (whose, expected) in [(Whose::Own, own), (Whose::Abandoned, abandoned), (Whose::Guest, guest)] {
            assert_eq!(turn(&asker, NOW, admission, whose), expected, "{admission:?} {whose:?}");
        }
    }
    assert_eq!(turn(&asker, later(3001), Pass, Whose::Own), Turn::Fail, "it would come late");
    assert_eq!(
        asker.turn(NOW, Pass, &Held::new(NOW, 1, Request::Meter), Whose::Own),
        Turn::Fail,
        "none that is passed"
    );
    // What may yet be begun at the other site, or have been, has not failed; and is not done twice where it must not be.
    for (key, request) in [(1, write(1)), (2, compare())] {
        asker.ask(NOW, Held::new(NOW, key, request)).unwrap();
    }
    let [tried, lost] = <[Held<u8>; 2]>::try_from(asker.take_all()).unwrap();
    assert_eq!(asker.turn(later(1), Refuse, &tried, Whose::Own), Turn::Wait);
    assert_eq!(asker.turn(later(1), Serve, &tried, Whose::Own), Turn::Begin);
    assert_eq!(asker.turn(later(1), Serve, &lost, Whose::Own), Turn::Wait);
    assert_eq!(asker.turn(later(1), Pass, &lost, Whose::Own), Turn::Wait);
    assert_eq!(asker.turn(later(3750), Pass, &lost, Whose::Own), Turn::Fail);
}
